"""scikit-learn: any loss as a scorer, and the score of an estimator over data in chunks."""

from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.metrics import make_scorer
from sklearn.model_selection import cross_val_score

from streamloss.integrations.sklearn import ChunkedScore, score_function

x, y = load_diabetes(return_X_y=True)
pinball = make_scorer(score_function("quantile(q=0.9)"), greater_is_better=False)
print("cross validation:", cross_val_score(Ridge(), x, y, scoring=pinball, cv=3))

model = Ridge().fit(x, y)
for size in (7, 32, 442):
    score = ChunkedScore(model, "quantile(q=0.9)")
    for start in range(0, 442, size):
        score.partial_fit(x[start : start + size], y[start : start + size])
    print(f"chunks of {size:3}: {score.result()!r}")
