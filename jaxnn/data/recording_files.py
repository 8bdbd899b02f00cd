"""Files of recordings that somebody names: the WAV files of a folder or of a zip, and their bytes.

A zip is read in memory, nothing of it is written to disk, and what it declares is not believed.
"""

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from jaxnn.data.picture_files import read_file, shown
from jaxnn.errors import DataError

MAX_RECORDINGS = 100_000
MAX_BYTES = 8 * 2**20  # of one recording
MAX_ALL = 4 * 2**30  # bytes of all of them
# What reading a damaged zip may raise: offsets and names in it can be anything.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError)
FORM = "{digit}_{speaker}_{index}.wav, as in 7_anna_12.wav"


def wav_files(path: Path, ending: str | None = None) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each WAV file of a folder, of its folder `recordings`, or of a zip.

    In a zip they may lie at any depth. Files with other suffixes, and hidden ones, are passed over.
    Of a file that is longer than `MAX_BYTES` one byte more than that is read. `ending` stands for
    that of the path, where a zip is named otherwise.

    Raises:
      DataError: no folder and no zip, a damaged one, or too many files.
    """
    try:
        if path.is_dir():
            yield from _bounded(_of_folder(path), shown(path))
            return
        there = path.is_file()
    except OSError as error:
        raise DataError(f"{shown(path)} could not be read: {error.strerror}") from error
    if not there or (ending or path.suffix).lower() != ".zip":
        raise DataError(
            f"{shown(path)} is neither a folder nor a .zip: give one of files named {FORM}"
        )
    yield from _bounded(_of_zip(read_file(path), shown(path)), shown(path))


def _bounded(files: Iterator[tuple[str, bytes]], what: str) -> Iterator[tuple[str, bytes]]:
    """The same files; many entries of a zip may share their bytes, and swell without end."""
    size = 0
    for name, blob in files:
        size += len(blob)
        if size > MAX_ALL:
            raise DataError(f"{what} holds more than {MAX_ALL:,} bytes of sound: give a part of it")
        yield name, blob


def checksum(path: Path, ending: str | None = None) -> str:
    """SHA-256, 64 hex digits, of what `LC_ALL=C sha256sum *.wav` says of all files together.

    It does not tell how they are packed: those of a zip are taken as if they lay in one folder.

    Args:
      path: the folder or zip.
      ending: what a file is read as, ".zip", where its name does not say so.

    Raises:
      DataError: as `wav_files`.
    """
    sums = [(name, hashlib.sha256(blob).hexdigest()) for name, blob in wav_files(path, ending)]
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def _is_wav(name: str) -> bool:
    return name.lower().endswith(".wav") and not name.startswith(".")


def _of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    if (folder / "recordings").is_dir():
        folder = folder / "recordings"
    paths = []
    for each in folder.iterdir():
        if _is_wav(each.name):
            paths.append(each)
            _check_count(len(paths), shown(folder))
    for each in sorted(paths):
        yield each.name, read_file(each)


def _of_zip(blob: bytes, what: str) -> Iterator[tuple[str, bytes]]:
    """The WAV files of a zip, in its order; of each no more is unpacked than one may have."""
    _check_count(blob.count(b"PK\x01\x02"), what)  # the sign before each entry of its directory
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            for entry in archive.infolist():
                name = PurePosixPath(entry.filename).name
                if not _is_wav(name) or entry.is_dir():
                    continue
                yield name, _unpacked(archive, entry, f"{what}: {shown(name)}")
    except DataError:
        raise
    except (*_DAMAGED, NotImplementedError) as error:
        raise DataError(
            f"{what} is not a whole zip file ({shown(str(error))}): fetch it again"
        ) from None
    except RuntimeError:
        raise DataError(f"{what} is protected by a password: pack the files without one") from None


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, what: str) -> bytes:
    """The bytes of a file, one more than `MAX_BYTES` at most."""
    # Only these are unpacked in steps: the others give all that a small file swells to at once.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{what} is packed by another method than deflate: pack the files again with an "
            "ordinary zip program"
        )
    with archive.open(entry) as file:
        return file.read(MAX_BYTES + 1)


def _check_count(count: int, what: str) -> None:
    if count > MAX_RECORDINGS:
        raise DataError(f"{what} holds more than {MAX_RECORDINGS:,} files: give a part of them")
