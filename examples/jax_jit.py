"""JAX: exact sums inside jit, and one psum of integers over devices."""

import jax
import jax.numpy as jnp

from streamloss.integrations.jax import empty, unpack, update

labels, predictions = jax.random.normal(jax.random.key(0), (2, 1000))
step = jax.jit(update)
for size in (8, 40, 1000):
    state = empty()
    for start in range(0, 1000, size):
        state = step(state, labels[start : start + size], predictions[start : start + size])
    print(f"chunks of {size:4}: {unpack(state).result()!r}")


def of_one_device(labels, predictions):
    return jax.lax.psum(update(empty(), labels, predictions), "devices")


states = jax.vmap(of_one_device, axis_name="devices")(labels.reshape(4, 250), predictions.reshape(4, 250))
print(f"on 4 devices  : {unpack(jax.tree.map(lambda limbs: limbs[0], states)).result()!r}")
assert jnp.array_equal(states.limbs[0], states.limbs[3])
