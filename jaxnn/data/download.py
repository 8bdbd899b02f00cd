"""Fetches MNIST, or other files, into the user's cache directory, from public mirrors in turn.

A mirror is not trusted: sizes are capped, time is limited, and a file is put into place only when
the SHA-256 of its unpacked content is right. What has arrived is kept as NAME.part, so that the
next mirror, or the next call, goes on from there.
"""

import contextlib
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from jaxnn.data.sources import cache_directory, open_plain_or_gzip
from jaxnn.errors import DataError, RunError

if sys.platform != "win32":
    import fcntl

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
MIN_SPEED = 1000  # bytes a second, on average, once the time-out has passed
_CHUNK = 2**16

Report = Callable[[str, int, int | None], None]  # (name, bytes so far, bytes in all if known)


def gzip_sha256(path: Path, size: int) -> str:
    """SHA-256 of a file's content, gzipped or not; unpacks one byte more than `size` at most."""
    with open_plain_or_gzip(path) as content:
        return hashlib.sha256(content.read(size + 1)).hexdigest()


class RemoteFile(NamedTuple):
    """A file that mirrors offer as NAME.gz; how it is compressed is the mirror's own choice."""

    name: str
    size: int  # bytes of the content, uncompressed; or, of another archive, the most it may have
    sha256: str  # of the content, uncompressed
    ending: str = ".gz"  # of the name that mirrors offer
    digest: Callable[[Path, int], str] = gzip_sha256  # of (file, size)


FILES = (
    RemoteFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


class _MirrorError(Exception):
    """Why one mirror would not do, in a few words."""


def download(
    directory: Path | None = None,
    mirrors: Sequence[str] = MIRRORS,
    report: Report | None = None,
    *,
    files: Sequence[RemoteFile] = FILES,
    timeout: float = 20.0,
) -> Path:
    """Fetches the files that are not there yet, and returns the directory that holds them.

    A mirror that worked is asked first for the next file. Two processes may do this at once: the
    second waits for the first, and then finds the files there.

    Args:
      directory: where to; the user's cache directory, which `load("mnist")` reads, where None.
      mirrors: URLs of directories, tried in turn.
      report: called with (name, bytes so far, bytes in all or None) as the bytes arrive.
      files: what to fetch.
      timeout: seconds that a mirror may keep silent.

    Raises:
      RunError: no mirror has a good copy of some file, or the directory cannot be written to.
    """
    directory = cache_directory() if directory is None else directory
    tell = report or (lambda name, done, total: None)
    mirrors = list(mirrors)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _alone_in(directory):
            for file in files:
                target = directory / (file.name + file.ending)
                if _is_good(target, file):
                    continue
                worked = _from_any(mirrors, target, file, tell, timeout)
                mirrors.sort(key=lambda mirror: mirror != worked)  # stable: the others keep turn
    except OSError as error:
        raise RunError(f"{directory} cannot be written to: {error.strerror or error}") from error
    return directory


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Waits until no other process downloads here; the lock dies with its process.

    Windows has no such lock: two at once may spoil each other's part there, and both notice.
    """
    with (directory / "download.lock").open("ab") as lock:
        if sys.platform != "win32":
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _from_any(
    mirrors: Sequence[str], target: Path, file: RemoteFile, report: Report, timeout: float
) -> str:
    """Puts the file into place and returns the mirror that had it."""
    part = target.with_name(f"{target.name}.part")
    reasons = []
    for mirror in mirrors:
        try:
            _from_one(f"{mirror.rstrip('/')}/{target.name}", part, file, report, timeout)
        except _MirrorError as error:
            reasons.append(f"{urlsplit(mirror).netloc or mirror} ({error})")
        else:
            part.replace(target)
            return mirror
    raise RunError(
        f"no mirror has a good copy of {target.name}: {', '.join(reasons) or 'none was given'}; "
        f"check the network, or put the file into {target.parent} yourself"
    )


def _from_one(url: str, part: Path, file: RemoteFile, report: Report, timeout: float) -> None:
    """Completes the part from one mirror and checks it.

    An earlier part may come from a mirror that compresses otherwise, or be damaged. Where the
    whole is wrong it is thrown away, and the same mirror is asked once more, from the start.
    """
    for _ in range(2):
        resumed = _receive(url, part, file, report, timeout)
        if _is_good(part, file):
            return
        part.unlink()
        if not resumed:
            break
    raise _MirrorError("wrong SHA-256")


def _receive(url: str, part: Path, file: RemoteFile, report: Report, timeout: float) -> bool:
    """Appends what is missing to the part; returns whether it began with bytes from before."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "jaxnn"} | ({"Range": f"bytes={have}-"} if have else {})
    with contextlib.ExitStack() as stack:
        try:
            request = urllib.request.Request(url, headers=headers)  # noqa: S310 - see _opener
            answer = stack.enter_context(_opener().open(request, timeout=timeout))
        except urllib.error.HTTPError as error:
            error.close()
            if have and error.code == 416:  # nothing after the part: it is whole, or wrong
                return True
            raise _MirrorError(f"HTTP status {error.code}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _MirrorError(_in_short(error, timeout)) from None
        start = have if answer.status == 206 else 0
        if start and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _MirrorError("sent another range than was asked for")
        total = None if answer.length is None else start + answer.length
        with part.open("ab" if start else "wb") as out:
            for piece in _pieces(answer, timeout):
                out.write(piece)
                report(file.name, out.tell(), total)
                if out.tell() > _most(file):
                    out.truncate(0)
                    raise _MirrorError(f"sent more than {_most(file):,} bytes")
            out.flush()
            os.fsync(out.fileno())
            if total is not None and out.tell() < total:
                raise _MirrorError(f"stopped after {out.tell():,} of {total:,} bytes")
    return start > 0


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https, also behind a proxy, and nothing else, wherever a mirror redirects."""
    opener = urllib.request.OpenerDirector()
    for name in ("Proxy", "HTTP", "HTTPS", "HTTPRedirect", "HTTPDefaultError", "Unknown"):
        opener.add_handler(getattr(urllib.request, f"{name}Handler")())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    return opener


def _pieces(answer: http.client.HTTPResponse, timeout: float) -> Iterator[bytes]:
    """The body as it arrives; gives up on a mirror that drips."""
    began = time.monotonic()
    received = 0
    while True:
        try:
            piece = answer.read1(_CHUNK)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _MirrorError(_in_short(error, timeout)) from None
        if not piece:
            return
        received += len(piece)
        yield piece
        elapsed = time.monotonic() - began
        if elapsed > timeout and received < MIN_SPEED * elapsed:
            raise _MirrorError(f"slower than {MIN_SPEED:,} bytes a second")


def _most(file: RemoteFile) -> int:
    """The most bytes that a gzip file of this content may have: gzip adds under 1 % to noise."""
    return file.size + file.size // 100 + 1000


def _is_good(path: Path, file: RemoteFile) -> bool:
    """Whether the content has the right SHA-256."""
    try:
        return file.digest(path, file.size) == file.sha256
    except (OSError, EOFError, zlib.error, DataError):
        return False


def _in_short(error: Exception, timeout: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, str):
        return cause
    if isinstance(cause, TimeoutError):
        return f"silent for {timeout:g} s"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__
