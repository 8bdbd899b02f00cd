"""Model and training-state files: safetensors with a JSON header, checked before use.

Any safetensors reader opens them. The header is the metadata entry "jaxnn", JSON text:

    {"format": 1, "kind": "model", "sha256": ..., "spec": {...}, "training": {...},
     "data": {...}, "metrics": {...}, "calibration": {"temperature": ..., "novelty_limit": ...}}

"calibration" and its entries may be missing. "sha256" is the digest of the whole file with these 64
digits as zeros, so that any damaged bit is noticed, in the numbers or in the header. Nothing in a
file depends on the clock: the same training gives the same bytes. Where parameters have 16 bits
each it is format 3; else with a novelty limit and arrays named familiar.mean and so on 2; else 1.
"""

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from jaxnn import arrays, models, novelty
from jaxnn.errors import CheckpointError, ConfigError, ShapeError
from jaxnn.files import write_aside
from jaxnn.models import Spec
from jaxnn.novelty import Familiar

FORMAT = 3  # the latest that is read
MAX_BYTES = 2**31
MAX_LAYERS = 1000
SHIPPED = Path(__file__).parent / "shipped" / "mlp.safetensors"
_KEY = "jaxnn"
_FAMILIAR = "familiar."  # before the names of its arrays
_ZEROS = "0" * 64


class ModelFile(NamedTuple):
    """A model as it lies on disk."""

    params: Any  # the family's tree, of NumPy arrays
    spec: Spec
    training: dict[str, Any]  # the settings that made it, as plain values
    data: dict[str, Any]  # what it was trained on: name, checksum, counts
    metrics: dict[str, float]
    temperature: float  # for `calibration.probabilities`; 1 where none was fitted
    familiar: Familiar | None  # for `novelty.novelty`; None in files of old: nothing is rejected
    digest: str  # SHA-256 of the file, 64 hex digits


class Contents(NamedTuple):
    """A checked file: the header, and arrays not yet fitted to a tree."""

    header: dict[str, Any]
    tensors: dict[str, np.ndarray]
    digest: str  # SHA-256 of the file, 64 hex digits


def save(
    path: str | os.PathLike[str],
    params: Any,
    spec: Spec = Spec(),  # noqa: B008 - a Spec is a tuple
    *,
    training: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    temperature: float | None = None,
    familiar: Familiar | None = None,
    half: bool = False,
) -> None:
    """Writes a model file, aside and then renamed into place.

    Args:
      path: the file, by custom `*.safetensors`; its folder is made.
      params: the tree of arrays that `models.build(spec).init` makes.
      spec: what network the parameters belong to.
      training: settings that made it; plain JSON values.
      data: what it was trained on; plain JSON values.
      metrics: figures measured on it.
      temperature: what `calibration.fit_temperature` found, above 0.
      familiar: what `novelty.fit` found.
      half: give each parameter 16 bits in the file instead of 32, see `arrays.halved`.

    Raises:
      CheckpointError: params or familiar do not fit the spec; a number is not what it can be.
      RunError: the file could not be written.
    """
    fields = {name: value for name, value in spec._asdict().items() if value != ""}  # as of old
    header: dict[str, Any] = {"spec": fields, "training": training or {}}
    header |= {"data": data or {}, "metrics": metrics or {}}
    found = {}
    if temperature is not None:
        found["temperature"] = _above_0(float(temperature), "temperature", Path(path))
    tensors = arrays.flatten(arrays.halved(params) if half else params)
    _network(tensors, spec, Path(path))
    if familiar is not None:
        parts = familiar._asdict()
        found["novelty_limit"] = parts.pop("limit")
        _familiar(parts, found["novelty_limit"], spec, Path(path))
        tensors |= {_FAMILIAR + name: array for name, array in parts.items()}
    header["format"] = 3 if half else 2 if familiar is not None else 1
    if found:
        header["calibration"] = found
    write(path, "model", tensors, header)


def load(path: str | os.PathLike[str]) -> ModelFile:
    """Reads a model file and checks all of it: bytes, format, spec, names, shapes and dtypes.

    Raises:
      CheckpointError: missing, truncated, damaged, foreign, or from a later version.
    """
    path = Path(path)
    contents = read(path, "model")
    header = {"calibration": {}, **contents.header}  # files of old have none
    spec = _spec(header.get("spec"), path)
    for name in ("training", "data", "metrics", "calibration"):
        if not isinstance(header.get(name), dict):
            raise CheckpointError(f"{path} has a header without {name}: train the model again")
    temperature = _above_0(header["calibration"].get("temperature", 1.0), "temperature", path)
    tensors, familiar = contents.tensors, None
    if "novelty_limit" in header["calibration"]:
        names = [name for name in tensors if name.startswith(_FAMILIAR)]
        parts = {name.removeprefix(_FAMILIAR): tensors.pop(name) for name in names}
        familiar = _familiar(parts, header["calibration"]["novelty_limit"], spec, path)
    return ModelFile(
        _network(tensors, spec, path), spec, header["training"], header["data"], header["metrics"],
        temperature, familiar, contents.digest,
    )  # fmt: skip


def write(path: str | os.PathLike[str], kind: str, tree: Any, header: dict[str, Any]) -> None:
    """Writes any tree of arrays with a header of plain values; `read` and `restore` undo it."""

    def encoded(digest: str) -> bytes:
        full = {"format": 1, "kind": kind, "sha256": digest, **header}
        # One metadata entry only: safetensors does not keep the order of several.
        return safetensors.numpy.save(
            arrays.flatten(tree), metadata={_KEY: json.dumps(full, sort_keys=True, default=float)}
        )

    digest = hashlib.sha256(encoded(_ZEROS)).hexdigest()
    write_aside(Path(path), encoded(digest))


def read(path: str | os.PathLike[str], kind: str) -> Contents:
    """Reads and checks a file that `write` made; `kind` is what it has to be.

    Raises:
      CheckpointError: missing, truncated, damaged, foreign, of another kind, or from a later
        version.
    """
    path = Path(path)
    blob = _bytes(path)
    try:
        # The library checks the layout; metadata it hands out for files only, so it is read here.
        tensors = safetensors.numpy.load(blob)
        length = int.from_bytes(blob[:8], "little")
        metadata = json.loads(blob[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: it is truncated, damaged or something else; "
            "take another copy or train the model again"
        ) from error
    if _KEY not in metadata:
        raise CheckpointError(f"{path} is a file of another program: it has no {_KEY!r} header")
    header = _header(metadata[_KEY], path)
    digest = header["sha256"]
    if hashlib.sha256(blob.replace(digest.encode(), _ZEROS.encode(), 1)).hexdigest() != digest:
        raise CheckpointError(
            f"{path} is damaged: its bytes do not have the checksum {digest[:12]}... that its "
            "header names; take another copy or train the model again"
        )
    if header.get("kind") != kind:
        raise CheckpointError(f"{path} holds a {header.get('kind')}, expected a {kind}")
    return Contents(header, tensors, hashlib.sha256(blob).hexdigest())


def restore(contents: Contents, like: Any, path: str | os.PathLike[str]) -> Any:
    """The arrays as a tree like `like`, whose leaves need only a shape and a dtype.

    Raises:
      CheckpointError: a name, shape or dtype differs.
    """
    return arrays.fit(contents.tensors, like, Path(path))


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a folder; a pipe or device might never end
            raise CheckpointError(f"{path} could not be read: it is no file, name a model file")
        with path.open("rb") as file:
            blob = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist: name a model file") from error
    except OSError as error:
        raise CheckpointError(f"{path} could not be read: {error.strerror}") from error
    if len(blob) > MAX_BYTES:
        raise CheckpointError(f"{path} has more than the {MAX_BYTES:,} bytes that a model may have")
    return blob


def _header(text: str, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
        version, digest = header["format"], header["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its header cannot be read") from error
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(
            f"{path} has format version {version}, this jaxnn reads up to {FORMAT}: upgrade jaxnn"
        )
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise CheckpointError(f"{path} is damaged: its header has no checksum")
    return header


def _spec(fields: Any, path: Path) -> Spec:
    try:
        sizes = tuple(int(size) for size in fields["sizes"][:MAX_LAYERS])
        spec = Spec(**{**fields, "sizes": sizes})
        models.build(spec)
    except (TypeError, KeyError, ValueError, OverflowError, ConfigError) as error:
        raise CheckpointError(f"{path} names a network that this jaxnn cannot build") from error
    return spec


def _above_0(found: Any, name: str, path: Path) -> float:
    number = isinstance(found, int | float) and not isinstance(found, bool)
    if not number or not 0 < found <= sys.float_info.max:
        raise CheckpointError(f"{path}: {name} is {found!r:.30}, expected a number above 0")
    return float(found)


def _familiar(parts: dict[str, Any], limit: Any, spec: Spec, path: Path) -> Familiar:
    """The arrays by name, and the limit, checked."""
    limit = _above_0(limit, "novelty_limit", path)
    names = {*Familiar._fields} - {"limit"}
    if parts.keys() != names:
        found, expected = arrays.some({*parts}), arrays.some(names)
        raise CheckpointError(f"{path} has {_FAMILIAR} arrays {found}, expected {expected}")
    familiar = Familiar(**parts, limit=limit)
    try:
        novelty.check(familiar, spec.sizes[0])
    except ShapeError as error:
        raise CheckpointError(f"{path}: {_FAMILIAR}{error}") from error
    return familiar


def _network(tensors: dict[str, np.ndarray], spec: Spec, path: Path) -> Any:
    """The arrays as the params of a spec's model, all of them finite numbers."""
    params = arrays.fit(tensors, jax.eval_shape(models.build(spec).init, jax.random.key(0)), path)
    for name, found in tensors.items():
        if not np.all(np.isfinite(found)):
            raise CheckpointError(f"{path}: {name} holds NaN or infinity: train the model again")
    return params
