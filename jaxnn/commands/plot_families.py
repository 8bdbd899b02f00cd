"""The pictures of `jaxnn plot` that look into convolutions and memories, or at any network."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxnn.commands import inputs, plot_inputs
from jaxnn.errors import ConfigError

if TYPE_CHECKING:
    from jaxnn.checkpoint import ModelFile
    from jaxnn.data import Dataset


@dataclass(frozen=True)
class OfFile:
    """What the pictures of a family ask for that has no model of its own in the package."""

    model: Annotated[Path, tyro.conf.Positional]
    """A model file of that family, made by `jaxnn train`."""
    data: str | None = None
    """embedded, mnist, or a folder of IDX files; else $JAXNN_DATA."""


@dataclass(frozen=True)
class Filters(OfFile):
    """What the filters of a cnn's first layer look for, and which patches they answer to."""

    out: Path = Path("filters.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Looks through the training images for the patches, and draws."""
        from jaxnn import data as datasets
        from jaxnn.explain import maps
        from jaxnn.plots import explain_maps, style

        style.check_path(self.out)
        file, dataset = plot_inputs.looked_into(self.model, "cnn"), datasets.load(self.data)
        found = maps.filters(file.params, file.spec, dataset.train_images)
        plot_inputs.save(explain_maps.filters(found), self.out)


@dataclass(frozen=True)
class Features(OfFile):
    """One digit on its way through a cnn: what its filters find in it, stage by stage."""

    index: int = 0
    """Which of the test images, counted from 0."""
    out: Path = Path("features.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws the maps."""
        from jaxnn import data as datasets
        from jaxnn.explain import maps
        from jaxnn.plots import explain_maps, style

        style.check_path(self.out)
        file, dataset = plot_inputs.looked_into(self.model, "cnn"), datasets.load(self.data)
        label = _label(file, dataset, self.index)
        found = maps.features(file.params, file.spec, dataset.test_images[self.index])
        title = f"Test image {self.index}: a {label}, read as {found.scores.argmax()}"
        plot_inputs.save(explain_maps.features(found, label, title), self.out)


@dataclass(frozen=True)
class Gates(OfFile):
    """The gates and memories of an lstm while it reads a digit row by row, or hears a word."""

    index: int | None = None
    """Which of the test images, counted from 0 (that one where nothing is given)."""
    recording: Path | None = None
    """A WAV file with one spoken digit, for a network that was trained on speech."""
    out: Path = Path("gates.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws gates, memories and scores over time."""
        from jaxnn.plots import style

        style.check_path(self.out)
        if self.recording is None:
            self._picture()
        elif self.index is None:
            self._recording(self.recording)
        else:
            raise ConfigError(
                f"both {self.recording} and --index {self.index} are given: choose one"
            )

    def _picture(self) -> None:
        from jaxnn import data as datasets
        from jaxnn.explain import gates
        from jaxnn.plots import explain_gates

        file, dataset = plot_inputs.looked_into(self.model, "lstm"), datasets.load(self.data)
        index = self.index or 0
        label = _label(file, dataset, index)
        found = gates.gates(file.params, file.spec, dataset.test_images[index])
        title = f"Test image {index}: a {label}, read row by row as {found.scores.argmax()}"
        plot_inputs.save(explain_gates.picture(found, title), self.out)

    def _recording(self, path: Path) -> None:
        from jaxnn.data import speech, wav
        from jaxnn.data.picture_files import read_file, shown
        from jaxnn.explain import gates
        from jaxnn.plots import explain_gates

        file = plot_inputs.listened_to(self.model)
        row = speech.prepare(wav.decode(read_file(path), shown(path), speech.MAX_SECONDS))
        found = gates.gates(file.params, file.spec, row)
        title = f"{shown(path.name)}, heard as {found.scores.argmax()}"
        plot_inputs.save(explain_gates.sound(found, title), self.out)


@dataclass(frozen=True)
class Saliency:
    """Which pixels the answers hang on, for networks of any family, one below the other."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Model files; the one that ships with jaxnn where none is given."""
    data: str | None = None
    """embedded, mnist, or a folder of IDX files; else $JAXNN_DATA."""
    out: Path = Path("saliency.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws the first test image of each digit."""
        import numpy as np

        from jaxnn import data as datasets
        from jaxnn.explain import saliency
        from jaxnn.plots import explain_saliency, style

        style.check_path(self.out)
        dataset = datasets.load(self.data)
        digits, first = np.unique(dataset.test_labels, return_index=True)
        found = []
        for path in self.models or (None,):
            file = inputs.load_model(path)
            inputs.check_labels(file, dataset)
            slopes = saliency.saliency(file.params, file.spec, dataset.test_images[first])
            found.append((file.spec.family, slopes))
        plot_inputs.save(explain_saliency.several(found, digits.tolist()), self.out)


def _label(file: "ModelFile", dataset: "Dataset", index: int) -> int:
    """What a test image shows; ConfigError where there is none, or the network knows too few."""
    inputs.check_labels(file, dataset)
    count = len(dataset.test_labels)
    if not 0 <= index < count:
        raise ConfigError(f"index is {index}, expected 0 to {count - 1}: one test image")
    return int(dataset.test_labels[index])
