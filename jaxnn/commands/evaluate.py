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
        from jaxnn import data
        from jaxnn.commands import inputs

        dataset = data.load(self.data)
        result = inputs.evaluate(inputs.load_model(self.model), dataset)
        count = len(dataset.test_labels)
        say(
            f"test accuracy {result.accuracy:.2%}, cost {result.cost:.4f} on {count:,} images",
            self.json,
        )
        say(confusion_text(result.confusion), self.json)
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
