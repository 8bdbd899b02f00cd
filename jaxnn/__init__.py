"""jaxnn: the small neural network that everyone meets first, in JAX.

    from jaxnn import mlp, gradients, data, train, checkpoint

Submodules load on first use, so that `import jaxnn` costs nothing.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("jaxnn")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+source"

_SUBMODULES = (
    "activations",
    "checkpoint",
    "cnn",
    "costs",
    "data",
    "errors",
    "gradients",
    "lstm",
    "metrics",
    "mlp",
    "models",
    "train",
)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"jaxnn.{name}")
    raise AttributeError(f"module 'jaxnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])
