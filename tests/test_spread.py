"""A batch spread over several devices: in a process of its own, since JAX counts them once."""

import os
import subprocess
import sys

import numpy as np

from jaxnn.spread import everywhere, spread

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jaxnn.spread import everywhere, spread

jax.config.update("jax_enable_x64", True)
assert len(jax.local_devices()) == 2

def cost(w, x, y):
    return jnp.mean((x @ w - y) ** 2)

def cost_and_gradient(w, x, y):
    rows.append(len(x))
    return jax.value_and_grad(cost)(w, x, y)

rng = np.random.default_rng(0)
w = rng.normal(size=(3, 2))
for size, part in ((6, 3), (5, 5)):
    rows = []
    x, y = rng.normal(size=(size, 3)), rng.normal(size=(size, 2))
    found = jax.jit(spread(cost_and_gradient))(w, x, y)
    assert rows == [part], rows
    expected = jax.value_and_grad(cost)(w, x, y)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-13)  # the same sums in another order

x, y = x[:4], y[:4]
step = jax.jit(lambda w: w - 0.1 * spread(cost_and_gradient)(w, x, y)[1])
w = everywhere(jnp.array(w))
for _ in range(3):
    w = step(w)
assert step._cache_size() == 1, "compiled once more"
"""


def test_two_devices_take_half_of_a_batch_each_and_agree_with_one() -> None:
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_one_device_computes_what_it_is_given() -> None:
    x = np.ones((4, 3))
    assert everywhere(x) is x
    assert spread(lambda params, x, y: (x, y))(None, x, x)[0] is x
