"""river: a rolling window that takes observations out again without a trace."""

from collections import deque

from river import datasets, linear_model, preprocessing

from streamloss.integrations.river import Metric

model, metric, window = preprocessing.StandardScaler() | linear_model.LinearRegression(), Metric(), deque()
for x, y in datasets.TrumpApproval():
    window.append((y, model.predict_one(x)))
    model.learn_one(x, y)
    metric.update(*window[-1])
    if len(window) > 100:
        metric.revert(*window.popleft())

fresh = Metric()
for pair in window:
    fresh.update(*pair)
assert metric.accumulator == fresh.accumulator
print("the last 100:", metric)
