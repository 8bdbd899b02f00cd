"""`jaxnn info`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxnn.commands.output import say, write_json


@dataclass(frozen=True)
class Info:
    """Say what a model file holds: its network, and how and on what it was trained."""

    model: Annotated[Path | None, tyro.conf.Positional] = None
    """A model file; the one that ships with jaxnn where not given."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Prints the checked header."""
        import jax

        from jaxnn import checkpoint, ready_made

        path = ready_made.path_of(self.model)
        file = checkpoint.load(path)
        leaves = jax.tree.leaves(file.params)
        result: dict[str, Any] = {
            "file": str(path),
            "sha256": file.digest,
            **file.spec._asdict(),
            "parameters": sum(leaf.size for leaf in leaves),
            "dtype": str(leaves[0].dtype),
            "temperature": file.temperature,
            "novelty limit": file.familiar and file.familiar.limit,
            "training": file.training,
            "data": file.data,
            "metrics": file.metrics,
        }
        for name, value in result.items():
            if isinstance(value, dict):
                say(f"{name}:", self.json)
                for inner, setting in value.items():
                    say(f"  {inner:16} {_text(setting)}", self.json)
            else:
                say(f"{name:18} {_text(value)}", self.json)
        write_json(self.json, result)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "-".join(str(item) for item in value)
    return f"{value:,}" if type(value) is int else str(value)
