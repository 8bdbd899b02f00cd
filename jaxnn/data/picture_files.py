"""Files of pictures that somebody names: which ones, with which label, and their bytes."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from jaxnn.data.sources import MAX_EXAMPLES
from jaxnn.errors import DataError

MAX_BYTES = 64 * 2**20  # of a picture, or of a CSV
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
DIGITS = frozenset("0123456789")


def labelled(path: Path) -> list[tuple[Path, int]]:
    """The pictures of a folder laid out as LABEL/*.png, or of a CSV, none of them opened yet.

    A folder holds folders named 0 to 9, and each of them pictures of that digit. Hidden files,
    and files whose suffix is none of `SUFFIXES`, are passed over. A CSV, in UTF-8, has two
    columns, the file and its label; files are relative to the CSV. Its first line is a header
    where it names neither a picture nor a number; no other line is passed over.

    Args:
      path: the folder, or a file whose suffix is .csv.

    Returns:
      Each file with its label, by label and name, or in the order of the CSV.

    Raises:
      DataError: no such folder or CSV, one of another layout, with a label that is no digit, with
        more than `MAX_EXAMPLES` pictures or with none.
    """
    what = shown(path)
    layout = "a folder laid out as LABEL/*.png, or a .csv file of file,label"
    try:
        if path.is_dir():
            return _of_folder(path)
        if path.suffix.lower() == ".csv":
            return _of_csv(path)
        found = "is neither" if path.exists() else "does not exist: expected"
    except OSError as error:
        raise DataError(f"{what} could not be read: {error.strerror}") from error
    raise DataError(f"{what} {found} {layout}")


def read_file(path: Path) -> bytes:
    """The bytes of a file that somebody named.

    Raises:
      DataError: no regular file (a pipe or device might never end), one that may not be read, or
        with more than `MAX_BYTES`.
    """
    what = shown(path)
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{what} could not be read: it is no file")
        with path.open("rb") as file:
            blob = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{what} could not be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the name
        if isinstance(error, DataError):
            raise
        raise DataError(f"{what} could not be read: no file has such a name") from error
    if len(blob) > MAX_BYTES:
        raise DataError(f"{what} has more than {MAX_BYTES:,} bytes: give a smaller file")
    return blob


def shown(name: Path | str) -> str:
    """A name as it can be printed: what could move the cursor or not be encoded is escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(name)
    )


def _of_folder(folder: Path) -> list[tuple[Path, int]]:
    """Every picture with its label, by label and name."""
    found: list[tuple[Path, int]] = []
    for entry in _visible(folder):
        inside = _visible(entry) if entry.is_dir() else []
        if inside and entry.name in DIGITS:
            found += [(each, int(entry.name)) for each in inside if _is_picture(each)]
            _check_count(len(found), folder)
            strays = [deep for each in inside if each.is_dir() for deep in _visible(each)]
        else:
            strays = inside or [entry]
        for stray in filter(_is_picture, strays):
            raise DataError(
                f"{shown(stray)} has no label: put every picture right into a folder named 0 to 9, "
                f"as in {shown(folder / '7')}, or name it in a CSV of file,label"
            )
    if not found:
        raise DataError(
            f"{shown(folder)} holds no pictures: expected some in folders named 0 to 9, with a "
            f"suffix of {', '.join(sorted(SUFFIXES))}"
        )
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what is hidden; more than can be used is refused."""
    found = []
    for entry in folder.iterdir():
        if not entry.name.startswith("."):
            found.append(entry)
            _check_count(len(found), folder)
    return sorted(found)


def _of_csv(path: Path) -> list[tuple[Path, int]]:
    """Every line's file with its label."""
    lines: dict[Path, tuple[int, int]] = {}  # file -> label, number of its line
    for at, (number, row) in enumerate(_rows(path)):
        where = f"{shown(path)}, line {number}"
        if len(row) != 2:
            raise DataError(
                f"{where} has {len(row)} values, expected 2, file,label: part them by one "
                "comma, and put a name that has a comma between quotes"
            )
        file, label = path.parent / row[0], row[1].strip()
        if at == 0 and not (_is_picture(file) or label.isdecimal()):
            continue  # a header
        if label not in DIGITS:
            raise DataError(
                f"{where} has the label '{shown(label[:40])}', expected a digit from 0 to 9"
            )
        if file in lines:
            raise DataError(
                f"{where} names {shown(row[0])} again, as line {lines[file][1]} did: name each "
                "picture once"
            )
        lines[file] = int(label), number
        _check_count(len(lines), path)
    if not lines:
        raise DataError(f"{shown(path)} names no pictures: expected lines of file,label")
    return [(file, label) for file, (label, _) in lines.items()]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV that are not empty, each with its number from 1."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{shown(path)} is not UTF-8 text: save it as a CSV in UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{shown(path)}, line {reader.line_num} is no CSV: {error}") from error


def _check_count(count: int, path: Path) -> None:
    if count > MAX_EXAMPLES:
        raise DataError(
            f"{shown(path)} holds more than {MAX_EXAMPLES:,} pictures: give a part of them"
        )
