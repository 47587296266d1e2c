"""JAX: exact sums inside jit, of any loss, and one psum of integers over devices."""

import jax
import jax.numpy as jnp

from streamloss.integrations.jax import empty, unpack, update

labels, predictions = jax.random.normal(jax.random.key(0), (2, 1000))
labels = labels.at[17].set(jnp.nan)  # left out
settings = {"loss": "huber(delta=0.5)", "nan": "omit"}
step = jax.jit(update, static_argnames=("loss", "nan"))
for size in (8, 40, 1000):
    state = empty()
    for start in range(0, 1000, size):
        part = slice(start, start + size)
        state = step(state, labels[part], predictions[part], **settings)
    print(f"chunks of {size:4}: {unpack(state, **settings).result()!r}")


def of_one_device(labels, predictions):
    return jax.lax.psum(update(empty(), labels, predictions, **settings), "devices")


states = jax.vmap(of_one_device, axis_name="devices")(labels.reshape(4, 250), predictions.reshape(4, 250))
print(f"on 4 devices  : {unpack(jax.tree.map(lambda limbs: limbs[0], states), **settings).result()!r}")
assert jnp.array_equal(states.limbs[0], states.limbs[3])
