"""Layers and gradients of the convolutional network, against NumPy loops, jax.grad and differences.

Tolerances: 1e-12 in float64, of sums of some hundred products, relative to the largest entry.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import relative_difference

from jaxnn import cnn, cnn_convolve, cnn_products, gradients, models
from jaxnn.cnn_convolve import Convolve, Kernels
from jaxnn.cnn_layers import Activate, Connect, Gains, Normalise, Pool
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.models import Spec

CONVOLUTIONS = [  # layer, and the height, width and maps of what it is given: odd ones, too
    (Convolve(3, 3), 7, 5, 2),
    (Convolve(2, 2, stride=2), 7, 6, 2),  # the last row is seen by no kernel
    (Convolve(2, 3, stride=2, padding=1), 8, 5, 2),
    (Convolve(1, 1), 3, 4, 2),
    (Convolve(2, 4, stride=3, padding=2), 9, 10, 2),
    (Convolve(2, 2, padding=3), 3, 3, 2),  # more padding than a kernel reaches
    (Convolve(2, 5), 5, 5, 2),  # one place
    (Convolve(3, 3), 8, 6, 1),  # in blocks of 2 x 2 places
    (Convolve(2, 3), 7, 6, 1),  # an odd number of rows: not in blocks
    (Convolve(2, 3, padding=1), 4, 6, 1),
]


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def in_loops(layer: Convolve, params: Kernels, a: np.ndarray) -> np.ndarray:
    """A convolution by its definition: nothing but loops and one sum of products."""
    high, wide, maps = layer.shape(a.shape)
    padded = np.zeros((a.shape[0] + 2 * layer.padding, a.shape[1] + 2 * layer.padding, a.shape[2]))
    padded[layer.padding :, layer.padding :][: a.shape[0], : a.shape[1]] = a
    out = np.empty((high, wide, maps))
    for i, j, f in np.ndindex(out.shape):
        top, left = i * layer.stride, j * layer.stride
        under = padded[top : top + layer.window, left : left + layer.window]
        out[i, j, f] = (under * np.asarray(params.kernels[f])).sum() + params.biases[f]
    return out


def back_in_loops(
    layer: Convolve, params: Kernels, a: np.ndarray, delta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """dC/dkernels and dC/da: each product of the loops above, taken both ways."""
    high, wide, maps = a.shape
    edge = layer.padding
    padded = np.zeros((high + 2 * edge, wide + 2 * edge, maps))
    padded[edge : edge + high, edge : edge + wide] = a
    slopes, back = np.zeros_like(params.kernels), np.zeros_like(padded)
    for i, j, f in np.ndindex(delta.shape):
        top, left = i * layer.stride, j * layer.stride
        under = np.s_[top : top + layer.window, left : left + layer.window]
        slopes[f] += delta[i, j, f] * padded[under]
        back[under] += delta[i, j, f] * np.asarray(params.kernels[f])
    return slopes, back[edge : edge + high, edge : edge + wide]


def quickly(function: Any) -> Any:
    """Jitted for one call: optimising the machine code would take longer than the call."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("quick", [True, False], ids=["as products", "as lax convolutions"])
def test_convolutions_and_their_two_gradients_equal_loops(
    x64: None, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one program, in a processor's way and in an accelerator's; the loops are the truth."""
    if not quick:
        monkeypatch.setattr(cnn_products, "quick", lambda *_: False)
        elsewhere = lambda *given, cpu, default: default(*given)  # noqa: E731
        monkeypatch.setattr(cnn_convolve.lax, "platform_dependent", elsewhere)
    given = []
    for layer, high, wide, maps in CONVOLUTIONS:
        shapes = layer.params((high, wide, maps))
        params = Kernels(drawn(1, *shapes.kernels), drawn(2, *shapes.biases))  # type: ignore[arg-type]
        fed, delta = drawn(3, 2, high, wide, maps), drawn(4, 2, *layer.shape((high, wide, maps)))
        given.append((params, fed, delta))

    @quickly
    def everything(given: Any) -> Any:
        return [
            (
                jax.vmap(layer.forward, (None, 0))(params, fed),
                layer.gradient(fed, delta),
                jax.vmap(layer.backward, (None, 0, 0, 0))(params, fed, delta, delta),
            )
            for (layer, *_), (params, fed, delta) in zip(CONVOLUTIONS, given, strict=True)
        ]

    for (layer, *_), (params, fed, delta), (out, slopes, returned) in zip(
        CONVOLUTIONS, given, everything(given), strict=True
    ):
        expected = np.stack([in_loops(layer, params, one) for one in fed])
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12, err_msg=str(layer))
        each = [back_in_loops(layer, params, *one) for one in zip(fed, delta, strict=True)]
        truth = sum(of_kernels for of_kernels, _ in each), np.stack([back for _, back in each])
        found = slopes.kernels, returned
        assert relative_difference(found, truth) < 1e-12, layer
        np.testing.assert_allclose(slopes.biases, delta.sum((0, 1, 2)), rtol=1e-12, atol=1e-13)


OTHERS: list[tuple[Any, tuple[int, ...], Any]] = [
    (Pool("max"), (5, 4, 2), ()),  # the fifth row is in no square
    (Pool("average", 3), (7, 6, 2), ()),
    (Normalise(), (3, 4, 2), Gains(drawn(5, 2), drawn(6, 2))),  # type: ignore[arg-type]
    (Activate("gelu"), (2, 3, 2), ()),
]


def test_the_way_back_through_other_layers(x64: None) -> None:
    given = [
        (params, drawn(7, 3, *shape), drawn(8, 3, *layer.shape(shape)))
        for layer, shape, params in OTHERS
    ]

    @quickly
    def everything(given: Any) -> Any:
        found = []
        for (layer, *_), (params, fed, delta) in zip(OTHERS, given, strict=True):
            out, back = jax.vjp(jax.vmap(layer.forward, (None, 0)), params, fed)
            returned = jax.vmap(layer.backward, (None, 0, 0, 0))(params, fed, out, delta)
            found.append(((layer.gradient(fed, delta), returned), back(delta)))
        return found

    for (layer, *_), (explicit, autodiff) in zip(OTHERS, everything(given), strict=True):
        assert relative_difference(explicit, autodiff) < 1e-12, layer


@quickly
def pooled(a: Any, eights: Any, fives: Any) -> Any:
    largest, average = Pool("max"), Pool("average")
    return (
        (largest.forward((), a), average.forward((), a)),
        (largest.backward((), a, fives, eights), average.backward((), a, eights, eights)),
    )


def test_pooling_by_hand() -> None:
    a = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, 9.0]], np.float32)[:, :, None]
    # The third column is left out.
    (largest, average), (to_largest, to_average) = pooled(
        a, np.full((1, 1, 1), 8, np.float32), np.full((1, 1, 1), 5, np.float32)
    )
    assert largest.tolist() == [[[5.0]]]
    assert average.tolist() == [[[3.5]]]
    assert to_largest[:, :, 0].tolist() == [[0, 4, 0], [0, 4, 0]]  # two hold it, and share
    assert to_average[:, :, 0].tolist() == [[2, 2, 0], [2, 2, 0]]


def test_normalised_maps_have_mean_0_and_variance_1(x64: None) -> None:
    gains = Gains(np.ones(3), np.zeros(3))  # type: ignore[arg-type]
    out = np.asarray(quickly(Normalise().forward)(gains, drawn(1, 9, 9, 3) * 7 + 4))
    assert float(out.mean()) == pytest.approx(0, abs=1e-12)
    assert float(out.var()) == pytest.approx(1, abs=1e-6)  # but for EPSILON in 49


def test_the_whole_network_against_autodiff_and_a_difference(x64: None) -> None:
    """TINY has every kind of layer. The difference is taken along one random direction, at 1e-5."""
    spec = Spec("cnn", (121, 3), "tanh", "softmax", "cross_entropy", architecture="tiny")
    model = models.build(spec)
    shapes = jax.eval_shape(model.init, KEY)
    params, way = (
        jax.tree.map(lambda leaf, seed=seed: drawn(seed + leaf.size, *leaf.shape), shapes)
        for seed in (0, 1000)
    )
    x, y = drawn(9, 5, 121), np.random.default_rng(1).random((5, 3))

    @quickly
    def both(params: Any) -> Any:
        autodiff = jax.value_and_grad(
            lambda params: gradients.batch_cost(params, x, y, model=model)
        )
        return gradients.batch_gradient(params, x, y, model=model), autodiff(params)

    def cost_at(far: float) -> float:
        return float(both(jax.tree.map(lambda leaf, step: leaf + far * step, params, way))[1][0])

    explicit, (_, autodiff) = both(params)
    assert relative_difference(explicit, autodiff) < 1e-11
    assert sum(leaf.size for leaf in jax.tree.leaves(explicit)) == 82
    assert all(np.any(leaf) for leaf in jax.tree.leaves(explicit))
    slope = jax.tree.reduce(
        float.__add__, jax.tree.map(lambda leaf, step: float(np.sum(leaf * step)), explicit, way)
    )
    assert slope == pytest.approx((cost_at(1e-5) - cost_at(-1e-5)) / 2e-5, rel=1e-6)


def test_lenet_is_small_and_begins_as_it_should() -> None:
    params = quickly(models.build(LENET).init)(jax.random.key(3))
    leaves = jax.tree.leaves(jax.device_get(params))
    assert sum(leaf.size for leaf in leaves) == 38_362
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    for weights in (leaf for leaf in leaves if leaf.ndim > 1):
        # Of n normal numbers the standard deviation is within 4/sqrt(2n) of the true one.
        expected = math.sqrt(2 / math.prod(weights.shape[1:]))
        assert float(weights.std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * weights.size))
    assert all((leaf == 0).all() for leaf in leaves if leaf.ndim == 1)


LENET = Spec("cnn", (784, 10), "relu", "softmax", "cross_entropy", architecture="lenet")


@pytest.mark.parametrize("architecture", cnn.ARCHITECTURES)
def test_shapes_are_those_of_the_trace(architecture: str) -> None:
    some = cnn.layers(architecture)
    params = jax.eval_shape(lambda key: cnn.init(key, architecture=architecture), KEY)
    found = jax.eval_shape(
        lambda params, x: cnn.trace(params, x, architecture=architecture), params, jnp.zeros(784)
    )
    assert tuple(a.shape for a in found.a) == cnn.shapes(some, 784)
    assert found.scores.shape == (10,) and isinstance(some[-1], Connect)


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (LENET._replace(architecture="alexnet"), "no architecture 'alexnet': choose one of lenet"),
        (LENET._replace(architecture=""), "choose one of lenet"),
        (LENET._replace(sizes=(784, 16, 10)), r"sizes of a cnn are \(784, 16, 10\), expected the"),
        (LENET._replace(sizes=(783, 10)), "a square picture"),
        (LENET._replace(sizes=(49, 10)), "so few pixels has none left"),
        (Spec(architecture="lenet"), "an mlp has its sizes only"),
    ],
)
def test_what_is_no_network_is_refused(spec: Spec, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        models.build(spec)


def test_what_does_not_fit_is_refused() -> None:
    params = jax.eval_shape(lambda key: cnn.init(key, (784, 10)), KEY)
    for x, sentence in ((jnp.zeros((28, 28)), "flattened"), (jnp.zeros(1024), "1024 pixels")):
        with pytest.raises(ShapeError, match=sentence):
            jax.eval_shape(cnn.forward, params, x)
    with pytest.raises(ShapeError, match="y has shape"):
        jax.eval_shape(cnn.backprop, params, jnp.zeros(784), jnp.zeros(9))
