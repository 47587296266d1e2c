"""Keras 3: an exact metric, a loss that Keras does not have, and a callback for values that CSVLogger sees."""

import keras
import numpy as np

from streamloss.integrations.keras import Evaluation, Loss, Metric

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.standard_normal((1000, 3)).astype("float32")
y = (x @ [1.0, -2.0, 0.5] + rng.standard_normal(1000)).astype("float32")
weights = rng.uniform(0, 2, 1000).astype("float32")

model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
model.compile("sgd", loss=Loss("quantile(q=0.9)"), metrics=[Metric()], weighted_metrics=[Metric(name="weighted")])
callback = Evaluation((x[:200], y[:200]), {"val_exact_mse": "squared_error", "val_pinball": "quantile(q=0.9)"})
history = model.fit(x, y, sample_weight=weights, epochs=3, verbose=0, callbacks=[callback])
for name, values in history.history.items():
    print(f"{name:15}", *(f"{value:.6f}" for value in values))
