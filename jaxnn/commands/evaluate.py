"""`jaxnn eval`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxnn.commands.output import say, write_json

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Eval:
    """Measure a model on the test images of a data set."""

    model: Annotated[Path | None, tyro.conf.Positional] = None
    """A model file; the one that ships with jaxnn where not given."""
    data: str | None = None
    """embedded, mnist (see `jaxnn data download`), or a folder of IDX files; else $JAXNN_DATA."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Prints accuracy, cost and the confusion matrix."""
        from jaxnn import checkpoint, metrics, models
        from jaxnn import data as datasets

        file = checkpoint.load(self.model or checkpoint.SHIPPED)
        dataset = datasets.load(self.data)
        result = metrics.evaluate(
            file.params, dataset.test_images, dataset.test_labels, model=models.build(file.spec)
        )
        count = len(dataset.test_labels)
        say(
            f"test accuracy {result.accuracy:.2%}, cost {result.cost:.4f} on {count:,} images",
            self.json,
        )
        say(confusion_text(result.confusion), self.json)
        here = datasets.NAMES.get(datasets.checksum(dataset))
        if (file.data.get("name"), here) == ("MNIST, whole", "MNIST, embedded part"):
            say(
                "note: this model was trained on all 60,000 training images of MNIST, and these "
                "are some of them: measure it on images it has not seen by "
                "`jaxnn data download` and --data mnist",
                self.json,
            )
        write_json(
            self.json,
            {
                "test_accuracy": result.accuracy,
                "test_cost": result.cost,
                "test_images": count,
                "confusion": result.confusion.tolist(),
            },
        )


def confusion_text(confusion: "np.ndarray") -> str:
    """The confusion matrix [n, n] as a table: rows are digits, columns what they were read as."""
    width = max(5, len(str(confusion.max())) + 1)
    head = "digit" + "".join(f"{label:{width}d}" for label in range(len(confusion)))
    rows = [
        f"{label:5d}" + "".join(f"{count or '.':>{width}}" for count in row)
        for label, row in enumerate(confusion.tolist())
    ]
    return "\n".join(["read as:", head, *rows])
