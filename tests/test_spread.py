"""A batch spread over several devices: in a process of its own, since JAX counts them once."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from jaxnn.commands import settings
from jaxnn.config import TrainConfig
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
    found = jax.jit(spread(cost_and_gradient, 2))(w, x, y)
    assert rows == [part], rows
    expected = jax.value_and_grad(cost)(w, x, y)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-13)  # the same sums in another order

x, y = x[:4], y[:4]
step = jax.jit(lambda w: w - 0.1 * spread(cost_and_gradient, 2)(w, x, y)[1])
w = everywhere(jnp.array(w), 2)
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
    assert everywhere(x, 2) is x
    assert spread(lambda params, x, y: (x, y), 2)(None, x, x)[0] is x
    given = lambda params, x, y: (x, y)  # noqa: E731
    assert spread(given, 0) is given


CNN = TrainConfig(family="cnn")


@pytest.mark.parametrize(
    ("config", "cores", "environment", "devices"),
    [
        (CNN, 2, {}, 2),
        (CNN, 1, {}, 0),
        (replace(CNN, batch_size=25), 4, {}, 0),  # no two equal parts
        (TrainConfig(), 2, {}, 0),  # an mlp
        (replace(CNN, devices=1), 2, {}, 1),
        (CNN, 2, {"NPROC": "2"}, 0),
        (CNN, 2, {"JAX_NUM_CPU_DEVICES": "1"}, 0),
        (CNN, 2, {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, 0),
    ],
)
def test_two_devices_where_two_cores_can_take_half_of_a_batch_each(
    config: TrainConfig,
    cores: int,
    environment: dict[str, str],
    devices: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = dict(environment)
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(settings, "_cores", lambda: cores)
    found = settings.devices_of(config)
    assert found == devices
    settings.provide_devices(found)
    told = {"JAX_NUM_CPU_DEVICES": "2", "NPROC": "1"} if devices == 2 else {}
    assert environment == {**before, **told}
