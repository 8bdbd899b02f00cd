"""`jaxnn data`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxnn.commands.output import say, write_json


@dataclass(frozen=True)
class Show:
    """Check a data set and say what is in it."""

    source: Annotated[str | None, tyro.conf.Positional] = None
    """embedded, mnist, or a folder of IDX files; else $JAXNN_DATA."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self) -> None:
        """Prints counts, digits and checksum."""
        import numpy as np

        from jaxnn import data

        dataset = data.load(self.source)
        result = {
            "train_images": len(dataset.train_images),
            "test_images": len(dataset.test_images),
            "train_digits": np.bincount(dataset.train_labels, minlength=10).tolist(),
            "test_digits": np.bincount(dataset.test_labels, minlength=10).tolist(),
            "checksum": data.checksum(dataset),
        }
        for name, value in result.items():
            say(f"{name:13} {value}", self.json)
        write_json(self.json, result)


@dataclass(frozen=True)
class Download:
    """Fetch a whole public data set into the user's cache folder, and check it."""

    name: Annotated[Literal["mnist", "fsdd"], tyro.conf.Positional] = "mnist"
    """mnist, the written digits, or fsdd, the spoken ones: the Free Spoken Digit Dataset."""
    to: Path | None = None
    """Another folder to put it in."""

    def run(self) -> None:
        """Fetches what is missing, checks all of it, and says where it lies."""
        from jaxnn.data import download, fsdd

        if self.name == "fsdd":
            files = (fsdd.ARCHIVE,)
            to = self.to or fsdd.directory()
            folder = download.download(to, fsdd.MIRRORS, _progress, files=files)
            archive = folder / fsdd.archive().name
            print(f"the Free Spoken Digit Dataset (CC BY-SA 4.0) lies in {archive}")
            return
        folder = download.download(self.to, report=_progress)
        source = "mnist" if self.to is None else str(folder)
        print(f"MNIST lies in {folder}: use it by --data {source}")


@dataclass(frozen=True)
class Data:
    """Look at a data set, or download a public one."""

    action: (
        Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Download, tyro.conf.subcommand("download")]
    )

    def run(self, argv: list[str]) -> None:
        """Runs the action."""
        self.action.run()


def _progress(name: str, done: int, total: int | None) -> None:
    if sys.stderr.isatty():
        of = f" of {total:,}" if total else ""
        print(f"\r{name}: {done:,}{of} bytes", end="", file=sys.stderr)
        if done == total:
            print(file=sys.stderr)
