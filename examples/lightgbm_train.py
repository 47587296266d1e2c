"""LightGBM: objective and metric from one loss, with weights."""

import lightgbm
import numpy as np
from sklearn.datasets import load_diabetes

from streamloss.integrations.lightgbm import metric, objective

x, y = load_diabetes(return_X_y=True)
data = lightgbm.Dataset(x, y, weight=np.linspace(0, 1, len(y)), init_score=np.full(len(y), 150.0))
model = lightgbm.train(
    {"objective": objective("huber(delta=30)"), "verbosity": -1},
    data,
    20,
    valid_sets=[data],
    feval=metric("huber(delta=30)"),
    callbacks=[lightgbm.log_evaluation(5)],
)
