"""Writing files so that a reader never sees half of one."""

import contextlib
import os
from pathlib import Path

from jaxnn.errors import RunError


def write_aside(path: Path, blob: bytes) -> None:
    """Writes a file beside `path`, forces it to disk, then renames it into place.

    Killed at any moment, `path` holds either what it held before or all of `blob`.

    Raises:
      RunError: the folder cannot be made or written to, or the disk is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise RunError(f"{path} could not be written: {error.strerror}") from error
