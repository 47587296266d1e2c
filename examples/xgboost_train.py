"""XGBoost: objective and metric from one loss, with weights."""

import numpy as np
import xgboost
from sklearn.datasets import load_diabetes

from streamloss.integrations.xgboost import metric, objective

x, y = load_diabetes(return_X_y=True)
data = xgboost.DMatrix(x, y, weight=np.linspace(0, 1, len(y)))
model = xgboost.train(
    {"max_depth": 3, "base_score": 150, "disable_default_eval_metric": 1},
    data,
    20,
    obj=objective("huber(delta=30)"),
    custom_metric=metric("huber(delta=30)"),
    evals=[(data, "train")],
    verbose_eval=5,
)
