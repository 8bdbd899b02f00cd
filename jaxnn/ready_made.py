"""The trained networks that come with jaxnn, by name."""

from pathlib import Path

from jaxnn.checkpoint import SHIPPED

NAMES = ("mlp", "cnn", "speech")


def path_of(path: Path | None) -> Path:
    """Where a model file lies.

    Args:
      path: a file; or one of NAMES, where no file is called that; the first of them for None.
    """
    if path is None:
        return SHIPPED
    if str(path) in NAMES and not path.exists():
        return SHIPPED.with_name(f"{path}.safetensors")
    return path
