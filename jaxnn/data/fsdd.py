"""The Free Spoken Digit Dataset: where it is published, and where it lies once downloaded.

Z. Jackson and contributors, version 1.0.10, CC BY-SA 4.0: 3,000 recordings by six speakers. What
is checked is the sum of the recordings: an archive that its publisher packs anew remains good.
"""

from pathlib import Path

from jaxnn.data.download import RemoteFile
from jaxnn.data.recording_files import checksum
from jaxnn.data.sources import cache_directory

MIRRORS = ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/",)
ARCHIVE = RemoteFile(
    name="v1.0.10",
    size=2**25,  # the recordings, packed, have half of that
    sha256="1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959",
    ending=".zip",
    digest=lambda path, size: checksum(path, ".zip"),
)


def directory() -> Path:
    """Where `jaxnn data download fsdd` puts the archive, for this user."""
    return cache_directory().parent / "fsdd"


def archive() -> Path:
    """The downloaded archive, which may not be there."""
    return directory() / (ARCHIVE.name + ARCHIVE.ending)
