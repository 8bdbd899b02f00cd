"""`jaxnn eval`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxnn.commands.output import say, write_json

if TYPE_CHECKING:
    import numpy as np

    from jaxnn.calibration import Reliability
    from jaxnn.checkpoint import ModelFile
    from jaxnn.data import Dataset
    from jaxnn.metrics import Evaluation


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
        """Prints accuracy, cost, calibration and the confusion matrix."""
        from jaxnn import calibration, data
        from jaxnn.commands import inputs

        dataset, file = data.load(self.data), inputs.load_model(self.model)
        result = inputs.evaluate(file, dataset)
        count = len(dataset.test_labels)
        chances = calibration.probabilities(result.scores, file.spec.output, file.temperature)
        trust = calibration.reliability(chances, dataset.test_labels)
        say(
            f"test accuracy {result.accuracy:.2%}, cost {result.cost:.4f} on {count:,} images",
            self.json,
        )
        say(
            f"expected calibration error {trust.ece:.4f} at temperature {file.temperature:.4g}",
            self.json,
        )
        agreement = {}
        if file.spec.members > 1:
            agreement = agreement_of(file, dataset, result)
            say(agreement_text(agreement), self.json)
        say(confusion_text(result.confusion), self.json)
        write_json(
            self.json,
            {
                "test_accuracy": result.accuracy,
                "test_cost": result.cost,
                "test_images": count,
                "temperature": file.temperature,
                "expected_calibration_error": trust.ece,
                "confidence_bins": bins_table(trust),
                **agreement,
                "confusion": result.confusion.tolist(),
            },
        )


def bins_table(trust: "Reliability") -> list[dict[str, float]]:
    """The bins of confidence that hold images, as plain values."""
    return [
        {
            "above": float(trust.edges[index]),
            "up_to": float(trust.edges[index + 1]),
            "images": int(count),
            "mean_confidence": float(trust.confidence[index]),
            "accuracy": float(trust.accuracy[index]),
        }
        for index, count in enumerate(trust.counts)
        if count
    ]


def agreement_of(file: "ModelFile", dataset: "Dataset", result: "Evaluation") -> dict[str, float]:
    """How often an ensemble's members agree, and how right it is where they do and do not."""
    from jaxnn import metrics, models

    agree = metrics.agreement(file.params, dataset.test_images, model=models.build(file.spec))
    right = result.scores.argmax(axis=1) == dataset.test_labels
    found = {"agreement": float(agree.mean(dtype="float64"))}
    for name, some in (("all_agree", agree == 1), ("some_disagree", agree < 1)):
        found[f"images_where_{name}"] = int(some.sum())
        if some.any():
            found[f"accuracy_where_{name}"] = float(right[some].mean())
    return found


def agreement_text(found: dict[str, float]) -> str:
    """The same as a sentence."""
    parts = [
        f"{found[f'accuracy_where_{name}']:.2%} right on the {found[f'images_where_{name}']:,} "
        f"images where {name.replace('_', ' ')}"
        for name in ("all_agree", "some_disagree")
        if f"accuracy_where_{name}" in found
    ]
    return "; ".join([f"members agree {found['agreement']:.2%} on average", *parts])


def confusion_text(confusion: "np.ndarray") -> str:
    """The confusion matrix [n, n] as a table: rows are digits, columns what they were read as."""
    width = max(5, len(str(confusion.max())) + 1)
    head = "digit" + "".join(f"{label:{width}d}" for label in range(len(confusion)))
    rows = [
        f"{label:5d}" + "".join(f"{count or '.':>{width}}" for count in row)
        for label, row in enumerate(confusion.tolist())
    ]
    return "\n".join(["read as:", head, *rows])
