"""By hand: gradients of micro-batches with the denominator of the whole batch, whatever their sizes and weights."""

import numpy as np

import streamloss

rng = np.random.default_rng(0)
x, y = rng.standard_normal((1000, 3)), rng.standard_normal(1000)
weights = rng.uniform(0, 2, 1000) * (rng.random(1000) < 0.8)
kernel = np.zeros(3)

whole = x.T @ streamloss.gradient(y, x @ kernel, weights, reduction="mean")
for size in (7, 32, 500):
    parts = [slice(start, start + size) for start in range(0, 1000, size)]
    total = streamloss.Accumulator(reduction="mean")
    for part in parts:
        total.update(y[part], y[part], weights[part])  # knows the weights of the whole batch, needs no predictions
    found = sum(x[p].T @ streamloss.gradient(y[p], x[p] @ kernel, weights[p], total=total) for p in parts)
    np.testing.assert_allclose(found, whole, rtol=1e-12)
print("the gradient of the batch:", whole)
