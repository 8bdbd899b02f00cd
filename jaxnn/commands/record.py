"""What a run's state says of itself. Read without JAX: the settings decide on JAX's threads."""

import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from safetensors import SafetensorError, safe_open

from jaxnn.config import TrainConfig
from jaxnn.errors import CheckpointError

MODEL, STATE = "model.safetensors", "state.safetensors"
DATA = {"name": str, "checksum": str, "train_images": int, "test_images": int}
PROGRESS = {"epoch": int, "best_epoch": int, "best_score": float}
WHOLE = 2**53  # larger ones are no exact floats


class Record(NamedTuple):
    """The header of a state, checked."""

    config: TrainConfig
    stream: bool  # whether the training images were read from disk in chunks
    data: dict[str, Any]  # DATA
    progress: dict[str, Any]  # PROGRESS


def read(folder: Path) -> Record:
    """The record of a run, to go on from; its bytes are checked when the arrays are read.

    Raises:
      CheckpointError: nothing to go on from, or a header that jaxnn does not write.
    """
    path = folder / STATE
    if not path.exists():
        has_model = (folder / MODEL).exists()
        begin = "begin again by --overwrite" if has_model else "leave --resume out to begin"
        raise CheckpointError(f"{folder} holds no {STATE} to resume: {begin}")
    unreadable = CheckpointError(
        f"{path} is damaged, or from another version of jaxnn: its header is not the record of a "
        "run; begin again by --overwrite"
    )
    if not path.is_file():  # a pipe or device might never end
        raise unreadable
    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {})["jaxnn"])
        stream = _checked({"stream": header["stream"]}, {"stream": bool})["stream"]
        settings = _checked(header["config"], get_type_hints(TrainConfig), all_of_them=False)
        data, progress = _checked(header["data"], DATA), _checked(header["progress"], PROGRESS)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise unreadable from error
    if not 0 <= progress["best_epoch"] <= progress["epoch"]:
        raise unreadable
    if "sizes" in settings:
        settings["sizes"] = tuple(settings["sizes"])
    return Record(TrainConfig(**settings), stream, data, progress)


def _checked(found: Any, hints: dict[str, Any], all_of_them: bool = True) -> dict[str, Any]:
    """The fields, if they are those that are expected, each with a value of its type."""
    if not isinstance(found, dict):
        raise TypeError("no fields")
    if found.keys() - hints.keys() or (all_of_them and hints.keys() - found.keys()):
        raise KeyError("other fields")
    for name, value in found.items():
        if not _fits(value, hints[name]):
            raise TypeError(name)
    return dict(found)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is one of a type that settings have."""
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in kinds
    if origin is tuple:
        return isinstance(value, list) and all(_fits(each, kinds[0]) for each in value)
    if kinds:  # one of several types
        return any(_fits(value, kind) for kind in kinds)
    if type(value) is int:
        return hint in (int, float) and abs(value) < WHOLE
    return type(value) is hint and (hint is not float or math.isfinite(value))
