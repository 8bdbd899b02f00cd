"""Model files to models that answer: found in a folder, read, checked, compiled, proven."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxnn import answers, checkpoint, data
from jaxnn.checkpoint import ModelFile
from jaxnn.errors import CheckpointError, ConfigError
from service import predictor
from service.config import IMAGE_BYTES
from service.inputs import Kind, kind_of
from service.predictor import BUCKETS, Predictor

PROOF_DIGITS = 50
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"[1-9]\d{0,17}")


@dataclass(frozen=True, eq=False)  # one load of a file is itself and no other
class ServedModel:
    """A model that is ready to answer."""

    name: str
    version: str
    file: ModelFile  # what it says of itself
    parameter_count: int
    metrics: dict[str, float]
    # uint8 [N, n_in], with rejection or not -> float32 [N, C + 3]: see `jaxnn.judged`
    predictor: Callable[[np.ndarray, bool], np.ndarray]
    weight: int = 1  # of an image: see `service.predictor.Predictor`

    @cached_property
    def takes(self) -> Kind:
        """What requests for it hold."""
        return kind_of(self.file.spec)


class Found(NamedTuple):
    """A model file, not yet read."""

    name: str
    version: str  # empty: the first 12 hex digits of the file's SHA-256
    path: Path
    signature: tuple[int, ...]  # changes when the file does
    problem: str = ""  # why it cannot be one, where that is plain already

    @property
    def number(self) -> int:
        """The version's; 0 where it has none."""
        return int(self.version) if _VERSION.fullmatch(self.version) else 0


def found_file(path: str | os.PathLike[str], name: str) -> Found:
    """A single model file under a name, there or not."""
    return Found(name, "", Path(path), _signature(Path(path)))


def found_in(folder: Path) -> dict[str, list[Found]]:
    """The models in NAME/VERSION/*.safetensors, versions from the lowest; nothing is read.

    Model files in other places and versions without one are found with what is wrong as their
    problem. Other files, and whatever begins with a dot, are left alone.

    Raises:
      ConfigError: the folder itself cannot be read.
    """
    models: dict[str, list[Found]] = {}
    try:
        for path in sorted(folder.glob("*/*/*.safetensors")):
            if found := _at(folder, path, path.parent):
                files = models.setdefault(found.name, [])
                if files and files[-1].version == found.version:
                    sentence = f"{path.parent} holds several model files, expected one"
                    files[-1] = files[-1]._replace(problem=f"{sentence}: remove others")
                else:
                    files.append(found)
        for path in sorted(folder.glob("*/*/")):
            found = _at(folder, path, path)
            files = models.get(found.name, []) if found else []
            if found and found.number and found.version not in [one.version for one in files]:
                sentence = f"{path} holds no model file: put one into it, NAME.safetensors"
                empty = found._replace(signature=(), problem=sentence)
                models.setdefault(found.name, []).append(empty)
        for path in sorted(folder.glob("*/*.safetensors")):
            if (found := _at(folder, path, path)) and path.is_file():
                sentence = f"{path} lies in no version's folder: move it to {path.parent / '1'}/"
                models.setdefault(found.name, []).append(found._replace(problem=sentence))
        if not models and not folder.is_dir():
            raise ConfigError(f"the repository {folder} is no folder: name one")
    except OSError as error:
        raise ConfigError(f"the repository {folder} cannot be read: {error.strerror}") from error
    return {name: sorted(files, key=lambda file: file.number) for name, files in models.items()}


def _at(folder: Path, path: Path, version: Path) -> Found | None:
    """What is at a path, of the model and version that its folders name; None if it is hidden."""
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return None
    problem = ""
    if not _VERSION.fullmatch(version.name):
        problem = f"{version} is no version: name the folder by a whole number from 1, such as 3"
    if not _NAME.fullmatch(version.parent.name):
        problem = f"{version.parent} is no model's name: use letters, digits, '.', '_' and '-'"
    return Found(_plain(version.parent.name), _plain(version.name), path, _signature(path), problem)


def _plain(name: str) -> str:
    """A file's name as an answer can hold it, however it is encoded."""
    return ascii(name)[1:-1][:100]


def load_model(
    path: str | os.PathLike[str],
    name: str,
    version: str = "",
    *,
    proof: float = 0.0,
    buckets: tuple[int, ...] = BUCKETS,
) -> ServedModel:
    """Reads a model file, compiles it for serving, and tries it on stored digits, or on sounds.

    Args:
      path: a file that `jaxnn.checkpoint.save` wrote.
      name: under which it answers.
      version: the same; the first 12 hex digits of the file's SHA-256 where empty.
      proof: the part of the stored digits that a model of ten classes has to read; there are no
        stored recordings for one of speech to be measured on.
      buckets: batch sizes to compile for.

    Raises:
      CheckpointError: the file is missing, damaged, or no model, or fails the proof.
      ConfigError: the model takes neither images of 784 pixels nor speech as it is prepared here.
    """
    file = checkpoint.load(path)
    try:
        rows, expected = _trials(kind_of(file.spec))
    except ConfigError as error:
        raise ConfigError(f"{path} cannot be served: {error}") from error
    compiled = Predictor(file, buckets)
    model = ServedModel(
        name=name,
        version=version or file.digest[:12],
        file=file,
        parameter_count=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(file.params)),
        metrics={
            name: float(value)
            for name, value in file.metrics.items()
            if isinstance(value, int | float)
        },
        predictor=compiled,
        weight=compiled.weight,
    )
    _prove(model, os.fspath(path), rows, expected, proof)
    return model


def _prove(
    model: ServedModel, path: str, rows: np.ndarray, expected: np.ndarray | None, proof: float
) -> None:
    """The compiled programs agree with the plain ones on rows, and read enough of stored digits."""
    plain = answers.answer(model.file, rows)
    compiled = model.predictor(rows, True)
    classes = model.file.spec.sizes[-1]
    apart = np.abs(predictor.scores(compiled) - plain.scores).max()
    if not apart < 1e-4:  # NaN is not, either
        what = "sounds" if expected is None else "stored digits"
        raise CheckpointError(
            f"{path} answers {what} otherwise when compiled, by {apart:.2g}: train it again"
        )
    if expected is None:
        return
    right = float(np.mean(predictor.labels(compiled) == expected))
    if classes == 10 and right < proof:
        raise CheckpointError(
            f"{path} reads {right:.0%} of {len(expected)} stored digits, expected {proof:.0%} at "
            "least: train it again, or lower the setting `proof`"
        )


@cache
def _trials(kind: Kind) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows to try a model on, and their labels where they have some.

    Raises:
      ConfigError: sounds become other rows than the model takes.
    """
    if kind.name == "images":
        digits = data.load("embedded")
        step = len(digits.test_images) // PROOF_DIGITS  # the same number of each digit
        return digits.test_images[::step].reshape(-1, IMAGE_BYTES), digits.test_labels[::step]
    from jaxnn.data import features, speech, wav  # here: see `service.preparing`

    if kind.shape != (features.STEPS, features.BANDS):
        steps, bands = kind.shape
        raise ConfigError(
            f"it takes {steps} steps of {bands} bands, but sounds are prepared as "
            f"{features.STEPS} of {features.BANDS}: train it on rows of that size"
        )
    time = np.arange(wav.RATE) / wav.RATE
    rising = np.sin(2 * np.pi * (300 + 900 * time) * time)  # of all lengths that are compiled for
    return np.stack([speech.prepare(rising[:end]) for end in range(800, len(time) + 1, 600)]), None


def _signature(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
