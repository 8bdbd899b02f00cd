"""JAX's persistent compilation cache: a program that was compiled once starts at once next time.

The cache lies in the user's cache directory, under jaxnn/xla; the environment variable JAXNN_CACHE
names another folder, or is `off`. It holds nothing that cannot be made again: delete it at any
time. Nothing that is wrong with it stops a run. Its files are machine code that JAX runs without
asking: never name a folder that others may write to.
"""

import hashlib
import os
import platform
import sys
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import platformdirs

LIMIT = 64 * 2**20  # bytes of programs kept; training one kind of network takes about 200 kB
_ZSTD = b"\x28\xb5\x2f\xfd"  # how an entry begins where Python or a package offers zstd
_CHECKED = "checked"


def enable(folder: Path | None = None) -> None:
    """Turns the cache on for this process, before its first compilation; best before JAX's import.

    A JAX_COMPILATION_CACHE_DIR that the user has set stands, and nothing is done. Set NPROC first
    where it is to be set. Never raises: where the folder cannot be used, programs are compiled as
    they would be without a cache.

    Args:
      folder: where to keep programs; None means what JAXNN_CACHE says, or the user's cache
        directory where it is not set.
    """
    named = os.environ.get("JAXNN_CACHE")
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or (folder is None and named == "off"):
        return
    # JAX warns of each entry that it cannot read or write, then compiles: nobody has to know.
    warnings.filterwarnings(
        "ignore", message="Error (reading|writing) persistent compilation cache entry"
    )
    try:
        if folder is None:
            folder = Path(named) if named else Path(platformdirs.user_cache_dir("jaxnn")) / "xla"
        place = folder.expanduser().absolute() / _machine()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _tidy(place)
    except (OSError, RuntimeError, ValueError):  # no such home, or a name that no file can have
        return
    _settle({"jax_compilation_cache_dir": str(place)})
    _settle({"jax_persistent_cache_min_compile_time_secs": 0.0})
    # On some processors XLA's loader takes a preference of the compiler (+prefer-no-gather) for a
    # missing feature, and says so at length for every program, which is good all the same
    # (openxla/xla issue 44565). True cases are kept apart by `_machine`.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _settle(settings: dict[str, str | float]) -> None:
    """Settings of JAX: read from the environment at its import, or else changed in place."""
    for name, value in settings.items():
        os.environ.setdefault(name.upper(), str(value))
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


def _machine() -> str:
    """A name for what decides the machine code, but is not in JAX's own key (0.10 to 0.12).

    That is the processor: a home directory may be shared by several kinds, and XLA only grumbles
    before it runs code that the processor lacks. And the number of threads, for which XLA cuts
    loops into pieces.
    """
    marks = [platform.machine(), platform.processor(), os.environ.get("NPROC", "")]
    marks.append(str(os.cpu_count()))
    with suppress(OSError):  # Linux only
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        marks += [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16]


def _tidy(place: Path) -> None:
    """Removes damaged entries, then the oldest beyond LIMIT.

    A process that was killed, or a full disk, leaves half an entry: JAX compiles around it every
    time, but never replaces it. Entries are looked into once, in the run after they were written.
    """
    mark = place / _CHECKED
    since = mark.stat().st_mtime if mark.exists() else 0.0
    entries = []
    for path in place.glob("*-cache"):
        with suppress(FileNotFoundError):  # another process tidies too
            about = path.stat()
            if about.st_mtime >= since and not _whole(path.read_bytes()):
                path.unlink()
            else:
                entries.append((about.st_mtime, about.st_size, path))
    kept = 0
    for _, size, path in sorted(entries, reverse=True):
        kept += size
        if kept > LIMIT:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # a folder that is only read
        mark.touch()


def _whole(entry: bytes) -> bool:
    """Whether an entry can be unpacked; one in zstd is left to JAX, which notices too."""
    if entry.startswith(_ZSTD):
        return True
    try:
        zlib.decompress(entry)
    except zlib.error:
        return False
    return True
