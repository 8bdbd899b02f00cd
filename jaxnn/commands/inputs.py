"""Models and digits for the commands, checked to fit each other."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnn.errors import ConfigError

MOST_TOLD = 20  # sentences about pictures that were left out

if TYPE_CHECKING:
    from jaxnn.checkpoint import ModelFile
    from jaxnn.data import Dataset
    from jaxnn.data.pictures import Pictures
    from jaxnn.metrics import Evaluation


def load_model(path: Path | None) -> "ModelFile":
    """A model that sees the pixels of a digit; the one that ships with jaxnn where none is named.

    Args:
      path: the model file, of any family; or the name of one that ships, such as cnn.

    Raises:
      CheckpointError: the file cannot be used.
      ConfigError: the model sees something else than 784 pixels.
    """
    from jaxnn import checkpoint, ready_made

    file = checkpoint.load(ready_made.path_of(path))
    if file.spec.sizes[0] != 784:
        raise ConfigError(
            f"{path} sees {file.spec.sizes[0]} numbers, but a picture has 784 pixels: name the "
            "model file of a network for digits"
        )
    return file


def own_pictures(path: Path) -> "Pictures":
    """Labelled pictures of a folder or CSV; says on stderr which ones cannot be used, and why.

    Raises:
      DataError: there are none that can be used.
    """
    from jaxnn.data import pictures

    found = pictures.load(path)
    for sentence in found.unread[:MOST_TOLD]:
        print(f"jaxnn: {sentence}", file=sys.stderr)
    if len(found.unread) > MOST_TOLD:
        print(f"jaxnn: ... and {len(found.unread) - MOST_TOLD:,} more", file=sys.stderr)
    return found


def note_training_pictures(file: "ModelFile", found: "Pictures") -> None:
    """Says on stderr where a model was trained on the very pictures that it is measured on."""
    from jaxnn import data as datasets
    from jaxnn.data import pictures

    if file.data.get("own_pictures") == datasets.checksum(pictures.split(found)):
        print(
            "note: the model was trained on these pictures too, all but the last fifth of each "
            "digit; measure it on unseen ones",
            file=sys.stderr,
        )


def check_plot(plot: Path, picture: Path) -> None:
    """Raises ConfigError where the figure would take the place of the picture that it shows."""
    if plot.exists() and picture.exists() and plot.samefile(picture):
        raise ConfigError(f"--plot {plot} is the picture itself: name another file")


def check_labels(file: "ModelFile", dataset: "Dataset") -> None:
    """Raises ConfigError where the data have a digit that the network does not know."""
    top, classes = int(dataset.test_labels.max()), file.spec.sizes[-1]
    if top >= classes:
        raise ConfigError(f"the digits go up to {top}, but the network knows {classes} of them")


def evaluate(file: "ModelFile", dataset: "Dataset", note: bool = True) -> "Evaluation":
    """Measures a network on the test images; says on stderr where it was trained on them."""
    from jaxnn import data as datasets
    from jaxnn import metrics, models

    check_labels(file, dataset)
    here = datasets.NAMES.get(datasets.checksum(dataset))
    if note and (file.data.get("name"), here) == ("MNIST, whole", "MNIST, embedded part"):
        print(
            "note: the model was trained on these digits too; measure it on unseen ones by "
            "`jaxnn data download` and --data mnist",
            file=sys.stderr,
        )
    model = models.build(file.spec)
    return metrics.evaluate(file.params, dataset.test_images, dataset.test_labels, model=model)
