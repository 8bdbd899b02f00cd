"""Model files: what is saved is loaded, and nothing damaged ever is."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from trees import same_bytes

from jaxnn import arrays, checkpoint, models
from jaxnn.errors import CheckpointError, JaxnnError, RunError
from jaxnn.models import Spec
from jaxnn.novelty import Familiar

SPEC = Spec("mlp", (6, 4, 3), "tanh", "softmax", "cross_entropy")
PARAMS = jax.device_get(models.build(SPEC).init(jax.random.key(0)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    checkpoint.save(file, PARAMS, SPEC, training={"seed": 3}, metrics={"test_accuracy": 0.5})
    return file


def test_what_is_saved_is_loaded(path: Path) -> None:
    file = checkpoint.load(path)
    assert same_bytes(file.params, PARAMS)
    assert file.spec == SPEC
    assert (file.training, file.data, file.metrics) == ({"seed": 3}, {}, {"test_accuracy": 0.5})


def test_any_safetensors_reader_opens_it(path: Path) -> None:
    with safetensors.safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == {"0.weights", "0.biases", "1.weights", "1.biases"}
        np.testing.assert_array_equal(file.get_tensor("1.weights"), PARAMS[1].weights)
        header = json.loads(file.metadata()["jaxnn"])
    assert header["spec"]["sizes"] == [6, 4, 3]
    assert header["format"] == 1


def test_the_same_model_gives_the_same_bytes_in_any_process(path: Path) -> None:
    script = (
        "import sys, jax; from jaxnn import checkpoint, models; from jaxnn.models import Spec;"
        f"spec = Spec(*{tuple(SPEC)!r}); params = models.build(spec).init(jax.random.key(0));"
        "checkpoint.save(sys.argv[1], params, spec, training={'seed': 3},"
        "temperature=1.3)"
    )
    checkpoint.save(path, PARAMS, SPEC, training={"seed": 3}, temperature=1.3)
    other = path.with_name("other.safetensors")
    subprocess.run([sys.executable, "-c", script, str(other)], check=True)
    assert other.read_bytes() == path.read_bytes()


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "no.safetensors")


def test_a_folder(tmp_path: Path) -> None:
    assert "could not be read" in refused(tmp_path)


def test_truncated_at_any_length(path: Path) -> None:
    blob = path.read_bytes()
    for length in [*range(0, 80), *range(80, len(blob), 37), len(blob) - 1]:
        path.write_bytes(blob[:length])
        assert "truncated, damaged or something else" in refused(path)


def test_longer_than_it_should_be(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path)


def test_any_flipped_bit_is_noticed(path: Path) -> None:
    blob = path.read_bytes()
    for position in range(len(blob)):
        damaged = bytearray(blob)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        refused(path)


@pytest.mark.parametrize("blob", [b"", b"hello", b"\x89PNG\r\n\x1a\n" * 20, b"\xff" * 100, b"{}"])
def test_foreign_files(path: Path, blob: bytes) -> None:
    path.write_bytes(blob)
    assert "something else" in refused(path)


def test_a_safetensors_file_of_another_program(path: Path) -> None:
    path.write_bytes(safetensors.numpy.save({"w": np.zeros(3)}, metadata={"format": "pt"}))
    assert "another program" in refused(path)


def rewritten(path: Path, tensors: dict | None = None, **changes: object) -> None:
    """The file with another header or other arrays, and a checksum that is right."""
    contents = checkpoint.read(path, "model")
    header = {**contents.header, **changes}
    for name in ("sha256", "kind"):
        header.pop(name)
    checkpoint.write(path, str(changes.get("kind", "model")), tensors or contents.tensors, header)


def test_a_file_from_the_future(path: Path) -> None:
    rewritten(path, format=4)
    assert "format version 4, this jaxnn reads up to 3: upgrade" in refused(path)


def test_parameters_of_16_bits_are_read_as_32(path: Path) -> None:
    checkpoint.save(path, PARAMS, SPEC, half=True)
    contents = checkpoint.read(path, "model")
    assert contents.header["format"] == 3  # so that a jaxnn of old says that it is too old
    assert {array.dtype for array in contents.tensors.values()} == {np.dtype(np.float16)}
    rounded = arrays.widened(arrays.halved(PARAMS))
    assert same_bytes(checkpoint.load(path).params, rounded)
    assert not same_bytes(rounded, PARAMS)
    checkpoint.save(path, rounded, SPEC, half=True)  # nothing is lost a second time
    assert same_bytes(checkpoint.load(path).params, rounded)


def test_what_16_bits_cannot_hold_is_refused(path: Path) -> None:
    large = jax.tree.map(lambda leaf: leaf * np.float32(1e6), PARAMS)
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        checkpoint.save(path, large, SPEC, half=True)


def test_a_state_is_not_a_model(path: Path) -> None:
    rewritten(path, kind="state")
    assert "holds a state, expected a model" in refused(path)


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        {"sizes": "abc"},
        {"sizes": [6, 4, 3], "family": "oracle"},
        {"sizes": [6, 4, 3], "colour": "red"},
        {"sizes": [6, 0, 3]},
        {"sizes": [6, float("inf"), 3]},
        {"sizes": [6, 4, 3], "activation": ["sigmoid"]},
    ],
)
def test_a_spec_that_cannot_be_built(path: Path, spec: object) -> None:
    rewritten(path, spec=spec)
    assert "cannot build" in refused(path)


def test_a_hostile_header_is_refused_quickly(path: Path) -> None:
    rewritten(path, spec={"sizes": [6] * 200_000})
    assert len(refused(path)) < 300
    for text in ("[" * 200_000, '{"format": 1, "sha256": "' + "\\ud800" * 64 + '"}'):
        path.write_bytes(safetensors.numpy.save({"w": np.zeros(3)}, metadata={"jaxnn": text}))
        assert "damaged" in refused(path)


def test_a_device_that_never_ends() -> None:
    assert "no file" in refused(Path("/dev/zero"))


def test_metrics_may_be_numpy_numbers(path: Path) -> None:
    checkpoint.save(path, PARAMS, SPEC, metrics={"test_accuracy": np.float32(0.5)})
    assert checkpoint.load(path).metrics == {"test_accuracy": 0.5}


@pytest.mark.parametrize("name", ["training", "data", "metrics", "calibration"])
def test_sections_of_the_wrong_type(name: str, path: Path) -> None:
    rewritten(path, **{name: []})
    assert f"without {name}" in refused(path)


def test_the_temperature_is_kept(path: Path) -> None:
    assert checkpoint.load(path).temperature == 1.0  # of a file that has none
    for temperature in (1.5, np.float32(1.5)):
        checkpoint.save(path, PARAMS, SPEC, temperature=temperature)
        assert checkpoint.load(path).temperature == 1.5
    header = checkpoint.read(path, "model").header
    assert header["calibration"] == {"temperature": 1.5}
    rewritten(path, calibration={"temperature": 2})
    assert checkpoint.load(path).temperature == 2.0


@pytest.mark.parametrize(
    "temperature",
    [None, "1", True, [1.0], {}, 0, -1.5, float("nan"), float("inf"), 10**400, "9" * 10**6],
    ids=lambda value: str(value)[:9],
)
def test_a_temperature_that_is_none(temperature: object, path: Path) -> None:
    rewritten(path, calibration={"temperature": temperature})
    sentence = refused(path)
    assert "expected a number above 0" in sentence
    assert len(sentence) < len(str(path)) + 100


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_not_saved(temperature: float, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="expected a number above 0"):
        checkpoint.save(path, PARAMS, SPEC, temperature=temperature)
    assert path.read_bytes() == before


FAMILIAR = Familiar(  # of the shapes that `novelty.fit` makes, for 6 pixels
    np.linspace(0, 1, 6).astype(np.float16),
    np.eye(2, 6, dtype=np.float16),
    np.arange(6).reshape(3, 2).astype(np.float16) / 3,
    np.full((3, 1, 2), 0.7, np.float16),
    np.array([0, 2, 2], np.uint8),
    3.5,
)


def test_what_is_familiar_is_kept(path: Path) -> None:
    assert checkpoint.load(path).familiar is None  # of a file that has none
    before = checkpoint.read(path, "model").header
    assert before["format"] == 1  # for every jaxnn to read
    checkpoint.save(path, PARAMS, SPEC, temperature=1.5, familiar=FAMILIAR)
    file = checkpoint.load(path)
    assert file.familiar is not None
    assert same_bytes(file.familiar, FAMILIAR)
    assert same_bytes(file.params, PARAMS)
    assert file.temperature == 1.5
    contents = checkpoint.read(path, "model")
    assert contents.header["calibration"] == {"temperature": 1.5, "novelty_limit": 3.5}
    assert contents.header["format"] == 2  # so that a jaxnn of old says that it is too old
    assert {name for name in contents.tensors if name.startswith("familiar.")} == {
        f"familiar.{name}" for name in ("mean", "components", "centres", "directions", "classes")
    }


def test_familiar_arrays_without_a_limit_are_too_much(path: Path) -> None:
    checkpoint.save(path, PARAMS, SPEC, familiar=FAMILIAR)
    rewritten(path, calibration={})
    assert "familiar.centres, familiar.classes" in refused(path)
    checkpoint.save(path, PARAMS, SPEC)
    rewritten(path, calibration={"novelty_limit": 3.5})
    assert "has familiar. arrays none, expected centres, classes" in refused(path)


@pytest.mark.parametrize("limit", [None, "1", True, 0, -1, float("nan"), float("inf"), 10**400])
def test_a_novelty_limit_that_is_none(limit: object, path: Path) -> None:
    checkpoint.save(path, PARAMS, SPEC, familiar=FAMILIAR)
    rewritten(path, calibration={"novelty_limit": limit})
    assert "novelty_limit is" in refused(path)
    if isinstance(limit, float):
        with pytest.raises(CheckpointError, match="novelty_limit is"):
            checkpoint.save(path, PARAMS, SPEC, familiar=FAMILIAR._replace(limit=limit))


@pytest.mark.parametrize(
    ("part", "array", "message"),
    [
        ("mean", np.zeros(7, np.float16), r"mean is float16 (7,), expected float16 (6,)"),
        ("mean", np.zeros(6, np.float32), r"mean is float32 (6,), expected float16 (6,)"),
        ("mean", np.full(6, np.nan, np.float16), "mean holds numbers beyond 1"),
        ("mean", np.full(6, -2, np.float16), "mean holds numbers beyond 1"),
        ("components", np.zeros((2, 5), np.float16), "components is"),
        ("components", np.zeros(6, np.float16), "components is"),
        ("components", np.array(0, np.float16), "components is"),
        ("components", np.zeros((0, 6), np.float16), "centres is"),
        ("centres", np.full((3, 2), 3, np.float16), "centres holds numbers beyond 2"),
        ("centres", np.zeros((4, 2), np.float16), "centres is"),
        ("directions", np.full((3, 1, 2), np.inf, np.float16), "directions holds"),
        ("directions", np.zeros((3, 3, 2), np.float16), "too many"),
        ("directions", np.zeros((3, 2), np.float16), "directions is"),
        ("classes", np.zeros((3, 1), np.uint8), "classes is"),
        ("classes", np.zeros(3, np.int8), "classes is"),
    ],
)
def test_familiar_arrays_that_cannot_be(
    part: str, array: np.ndarray, message: str, path: Path
) -> None:
    checkpoint.save(path, PARAMS, SPEC, familiar=FAMILIAR)
    before = path.read_bytes()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(path, PARAMS, SPEC, familiar=FAMILIAR._replace(**{part: array}))
    assert message in str(caught.value)
    assert path.read_bytes() == before
    tensors = checkpoint.read(path, "model").tensors
    rewritten(path, {**tensors, f"familiar.{part}": array})
    assert message in refused(path)


def test_arrays_without_a_byte_cannot_ask_for_much(path: Path) -> None:
    """Of shape (m, 2**40, 0): nothing on disk, and terabytes where it was multiplied."""
    checkpoint.save(path, PARAMS, SPEC, familiar=FAMILIAR)
    tensors = checkpoint.read(path, "model").tensors
    empty = {
        "components": np.zeros((0, 6), np.float16),
        "centres": np.zeros((3, 0), np.float16),
        "directions": np.zeros((3, 2**40, 0), np.float16),
    }
    rewritten(path, tensors | {f"familiar.{name}": array for name, array in empty.items()})
    assert "too many, or none" in refused(path)


def test_arrays_of_other_shape_dtype_or_name(path: Path) -> None:
    tensors = checkpoint.read(path, "model").tensors
    rewritten(path, {**tensors, "0.biases": np.zeros(5, np.float32)})
    assert "0.biases is float32 (5,), expected float32 (4,)" in refused(path)
    rewritten(path, {**tensors, "0.biases": np.zeros(4)})
    assert "0.biases is float64 (4,), expected float32 (4,)" in refused(path)
    rewritten(path, {**tensors, "extra": np.zeros(4)})
    assert "extra" in refused(path)
    rewritten(path, {"0.weights": tensors["0.weights"]})
    assert "none too much, 0.biases, 1.biases, 1.weights missing" in refused(path)


def test_numbers_that_are_none(path: Path) -> None:
    tensors = checkpoint.read(path, "model").tensors
    tensors["1.weights"][0, 0] = np.nan
    rewritten(path, tensors)
    assert "1.weights holds NaN or infinity" in refused(path)


def test_params_that_do_not_fit_their_spec_are_not_saved(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"expected float32 \(4, 6\)"):
        checkpoint.save(path, models.build(Spec(sizes=(7, 4, 3))).init(jax.random.key(0)), SPEC)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        checkpoint.save(tmp_path / "file" / "model.safetensors", PARAMS, SPEC)


def test_killed_at_any_moment_of_writing_a_good_file_remains(path: Path) -> None:
    """A process that does nothing but save is killed again and again, at random moments."""
    script = (
        "import sys, jax; from jaxnn import checkpoint, models; from jaxnn.models import Spec\n"
        f"spec = Spec(*{tuple(SPEC)!r}); params = models.build(spec).init(jax.random.key(0))\n"
        "print('ready', flush=True)\n"
        "for n in range(100_000): checkpoint.save(sys.argv[1], params, spec, training={'n': n})"
    )
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.05, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        file = checkpoint.load(path)
        assert same_bytes(file.params, PARAMS)
        seen.add(file.training.get("n"))
    assert len(seen) > 1  # it did write


def test_errors_are_jaxnn_errors_with_exit_code_2() -> None:
    assert issubclass(CheckpointError, JaxnnError)
    assert CheckpointError.exit_code == 2
