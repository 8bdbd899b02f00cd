"""Writing files so that a reader never sees half of one."""

import contextlib
import os
from pathlib import Path

from jaxnn.errors import RunError


def write_aside(path: Path, blob: bytes) -> None:
    """Writes a file beside `path`, forces it to disk, then renames it into place.

    Killed at any moment, `path` holds either what it held before or all of `blob`.

    Raises:
      RunError: `path` is a folder, the folder cannot be made or written to, or the disk is full.
    """
    if not path.name or path.is_dir():
        raise RunError(f"{path} could not be written: it is a folder, name a file")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:  # Ctrl-C too must leave nothing behind
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise RunError(f"{path} could not be written: {error.strerror}") from error
        raise
