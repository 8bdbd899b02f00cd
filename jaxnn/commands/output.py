"""What all commands share: results as JSON, and where the shipped model lies."""

import json
from pathlib import Path
from typing import Any

from jaxnn.files import write_aside


def write_json(target: str | None, result: dict[str, Any]) -> None:
    """Writes a result to a file, or to standard output where the target is "-"."""
    if target is None:
        return
    text = json.dumps(result, indent=2) + "\n"
    if target == "-":
        print(text, end="")
    else:
        write_aside(Path(target), text.encode())


def say(text: str, json_target: str | None) -> None:
    """Prints a result for people, unless standard output belongs to JSON."""
    if json_target != "-":
        print(text)
