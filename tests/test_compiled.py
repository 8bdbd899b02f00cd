"""One program answers as the network, NumPy's confidence and NumPy's novelty do, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import answers, calibration, checkpoint, compiled, data, models, novelty
from jaxnn.checkpoint import ModelFile
from jaxnn.models import Spec

SHIPPED = checkpoint.load(checkpoint.SHIPPED)


def odd_images() -> np.ndarray:
    """Real digits, clothes-like blocks, noise, and what nobody should send: uint8 [256, 784]."""
    rng = np.random.default_rng(4)
    digits = data.load("embedded").test_images[:150].reshape(-1, 784)
    noise = rng.integers(0, 256, (40, 784), np.uint8)
    faint = rng.integers(0, 3, (20, 784), np.uint8)
    blocks = np.zeros((40, 28, 28), np.uint8)
    for block, (top, left, height, width) in zip(blocks, rng.integers(0, 20, (40, 4)), strict=True):
        block[top : top + height + 1, left : left + width + 1] = 200
    corner, edge = np.zeros((2, 28, 28), np.uint8)
    corner[0, 0] = corner[27, 27] = 255
    edge[:, 27] = edge[13, 0] = 255  # its neighbours in memory are not its neighbours
    one = np.zeros((4, 784), np.uint8)
    one[range(4), (0, 27, 400, 783)] = (1, 255, 255, 3)
    odd = np.stack([np.zeros((28, 28)), np.full((28, 28), 255), corner, edge]).reshape(4, -1)
    images = [digits[:148], noise, faint, blocks.reshape(40, -1), odd.astype(np.uint8), one]
    return np.concatenate(images)


IMAGES = odd_images()


def made(spec: Spec, *, familiar: novelty.Familiar | None, temperature: float = 1.0) -> ModelFile:
    """A network that nobody trained."""
    params = jax.jit(models.build(spec).init)(jax.random.key(1))
    params = jax.tree.map(np.asarray, params)
    return SHIPPED._replace(params=params, spec=spec, temperature=temperature, familiar=familiar)


def small_images(n_in: int) -> np.ndarray:
    """Pictures of another size, a blank one among them."""
    images = np.random.default_rng(n_in).integers(0, 256, (64, n_in), np.uint8)
    images[5] = 0
    return images


def small_familiar(n_in: int) -> novelty.Familiar:
    labels = np.arange(64) % 10
    return novelty.fit(small_images(n_in), labels, np.eye(10)[labels])


FILES = {
    "shipped": SHIPPED,
    "ensemble": made(Spec(sizes=(784, 12, 10), members=2), familiar=SHIPPED.familiar),
    "softmax": made(
        Spec(sizes=(784, 9, 8, 10), activation="relu", output="softmax", cost="cross_entropy"),
        familiar=SHIPPED.familiar,
        temperature=2.5,
    ),
    "one layer": made(Spec(sizes=(784, 10)), familiar=None),
    "no square": made(Spec(sizes=(35, 6, 10)), familiar=small_familiar(35)),
}


def run(
    file: ModelFile, images: np.ndarray, integers: bool, *others: ModelFile
) -> list[np.ndarray]:
    """What the program says; compiled once, also with the arrays of files of the same shapes."""
    params, program = compiled.program(file, integers=integers)
    executable = jax.jit(program).lower(params, images).compile()
    every = (params, *(compiled.program(other, integers=integers)[0] for other in others))
    return [np.asarray(executable(params, images)) for params in every]


def images_for(file: ModelFile) -> np.ndarray:
    n_in = file.spec.sizes[0]
    return IMAGES if n_in == 784 else small_images(n_in)


@pytest.mark.parametrize(
    ("name", "integers"),
    [
        ("shipped", False),
        ("shipped", True),
        ("ensemble", True),
        ("softmax", False),
        ("no square", True),
    ],
)
def test_the_program_answers_as_the_offline_steps_do(name: str, integers: bool) -> None:
    file = FILES[name]
    images = images_for(file)
    truth = answers.answer(file, images)
    others: list[ModelFile] = []
    if file.familiar is not None:  # with other limits, more of the images are beside one
        some = truth.novelty[np.isfinite(truth.novelty)]
        assert len(np.unique(some)) > 0.8 * len(images)
        limits = np.quantile(some, (0.1, 0.3, 0.5, 0.7, 0.9)).tolist()
        others = [file._replace(familiar=file.familiar._replace(limit=one)) for one in limits]
    # Weighted inputs may be as large as 200: in float32 they, and so the scores, differ by 1e-5.
    clear = np.diff(np.sort(truth.scores, axis=1)[:, -2:]).ravel() > 4e-5
    assert clear.mean() > 0.9
    for one, found in zip((file, *others), run(file, images, integers, *others), strict=True):
        np.testing.assert_allclose(found[:, :-3], truth.scores, rtol=0, atol=2e-5)
        np.testing.assert_array_equal(found[clear, -3], truth.labels[clear])
        np.testing.assert_array_equal(found[:, -3], found[:, :-3].argmax(axis=1))
        np.testing.assert_allclose(found[:, -2], truth.confidence, rtol=0, atol=1e-4)
        if one.familiar is not None:
            limit = one.familiar.limit
            sure = clear & ~(np.abs(truth.novelty - limit) < 3e-4 * limit)
            assert sure.mean() > 0.9
            np.testing.assert_array_equal(found[sure, -1], truth.novelty[sure] > limit)


def test_any_temperature_leaves_a_chance() -> None:
    """Also a network of one layer, and a file that does not say what is familiar."""
    first = FILES["one layer"]
    others = [first._replace(temperature=T) for T in (1e-300, 0.05, 20.0, 1e300)]
    for file, found in zip((first, *others), run(first, IMAGES, False, *others), strict=True):
        scores = answers.answer(file, IMAGES).scores
        np.testing.assert_allclose(found[:, :-3], scores, rtol=0, atol=2e-5)
        truth = answers.judged(file, IMAGES, found[:, :-3])  # of these scores: a low T magnifies
        np.testing.assert_array_equal(found[:, -3], truth.labels)
        np.testing.assert_allclose(found[:, -2], truth.confidence, rtol=0, atol=1e-4)
        assert not found[:, -1].any()


def test_scores_that_saturate() -> None:
    """Of which two are the largest, the first is the label; 0 and 1 have a finite log."""
    scores = np.float32([[0, 1, 1, 0.5], [0, 0, 0, 0], [1e-30, 1e-7, 1 - 6e-8, 0]])
    for output in ("sigmoid", "softmax"):
        for temperature in (0.3, 1.0, 5.0):
            truth = calibration.probabilities(scores, output, temperature).max(axis=1)
            found = compiled._confidence(jnp.asarray(scores), output, np.float32(1 / temperature))
            np.testing.assert_allclose(found, truth, rtol=2e-5)
