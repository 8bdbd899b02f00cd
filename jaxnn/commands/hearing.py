"""Models and recordings for the commands that hear: which is which, and whether they fit."""

from pathlib import Path
from typing import TYPE_CHECKING

from jaxnn.errors import ConfigError

if TYPE_CHECKING:
    from jaxnn.checkpoint import ModelFile
    from jaxnn.data import Dataset
    from jaxnn.data.speech import Recording

SHIPPED = Path("speech")  # by name, see `ready_made`


def hears(path: Path) -> bool:
    """Whether a model file is of a network for speech.

    Raises:
      CheckpointError: the file cannot be used.
    """
    from jaxnn import checkpoint, ready_made

    return _fits(checkpoint.load(ready_made.path_of(path)))


def load_model(path: Path | None) -> "ModelFile":
    """A model that hears words; the one that ships with jaxnn where none is named.

    Raises:
      CheckpointError: the file cannot be used.
      ConfigError: the model takes something else than a row of features.
    """
    from jaxnn import checkpoint, ready_made
    from jaxnn.data import features

    file = checkpoint.load(ready_made.path_of(path or SHIPPED))
    if not _fits(file):
        raise ConfigError(
            f"{path or SHIPPED} takes {file.spec.sizes[0]:,} numbers, but a spoken digit has "
            f"{features.STEPS} steps of {features.BANDS}: name a model file trained on speech"
        )
    return file


def is_sound(path: Path) -> bool:
    """Whether a file begins as a WAV file does; False where it cannot be read."""
    try:
        if not path.is_file():  # a pipe might never end
            return False
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] == b"WAVE"


def recordings(source: str | None) -> "tuple[list[Recording], str]":
    """Spoken digits, and what to call them in a file's header.

    Args:
      source: a folder or a zip; "fsdd" or None is the downloaded Free Spoken Digit Dataset.

    Raises:
      ConfigError: none is named, and none was downloaded.
      DataError: files that cannot be used.
    """
    from jaxnn.data import fsdd, recording_files, speech

    named = source not in (None, "fsdd")
    path = Path(source) if source and named else fsdd.archive()
    if not (named or path.exists()):
        raise ConfigError(
            "the Free Spoken Digit Dataset is not here: run `jaxnn data download fsdd`, or name a "
            "folder or zip of recordings by --data"
        )
    found = speech.load(path)
    public = recording_files.checksum(path) == fsdd.ARCHIVE.sha256
    return found, "Free Spoken Digit Dataset" if public else "spoken digits"


def test_part(source: str | None, speaker: str | None) -> "Dataset":
    """Recordings to measure a model on: the test part, or all by one speaker."""
    from jaxnn.data import Dataset, speech

    images, labels = speech.rows(speech.split(recordings(source)[0], speaker)[1])
    return Dataset(images[:0], labels[:0], images, labels)


def _fits(file: "ModelFile") -> bool:
    from jaxnn.data import features

    return file.spec.sizes[0] == features.SIZE
