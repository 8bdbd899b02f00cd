"""What all commands share: results as JSON, and where the shipped model lies."""

import json
import math
from pathlib import Path
from typing import Any

from jaxnn.files import write_aside


def json_text(value: Any, indent: int | None = None) -> str:
    """Plain values as JSON, which has no infinity and no NaN: null stands for them."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(target: str | None, result: dict[str, Any]) -> None:
    """Writes a result to a file, or to standard output where the target is "-"."""
    if target is None:
        return
    text = json_text(result, indent=2) + "\n"
    if target == "-":
        print(text, end="")
    else:
        write_aside(Path(target), text.encode())


def say(text: str, json_target: str | None) -> None:
    """Prints a result for people, unless standard output belongs to JSON."""
    if json_target != "-":
        print(text)
