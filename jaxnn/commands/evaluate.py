"""`jaxnn eval`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxnn.commands.output import say, write_json
from jaxnn.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from jaxnn.answers import Answers
    from jaxnn.calibration import Reliability
    from jaxnn.checkpoint import ModelFile
    from jaxnn.data import Dataset
    from jaxnn.data.pictures import Pictures
    from jaxnn.metrics import Evaluation


MOST_SHOWN = 20  # pictures that were read wrongly


@dataclass(frozen=True)
class Eval:
    """Measure a model on the test images of a data set, or on pictures of your own."""

    model: Annotated[Path | None, tyro.conf.Positional] = None
    """A model file; the one that ships with jaxnn where not given."""
    data: str | None = None
    """embedded, mnist (see `jaxnn data download`), or a folder of IDX files; else $JAXNN_DATA. Of a
    model for speech: a folder or zip of files such as 7_anna_12.wav, or fsdd, the downloaded
    set."""
    speaker: str | None = None
    """Of a model for speech: measure on all recordings of this speaker; on those with the indices 0
    to 4 where not given."""
    images: Path | None = None
    """Pictures of your own in place of a data set: a folder laid out as LABEL/*.png, or a CSV of
    file,label."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Prints accuracy, cost, calibration and the confusion matrix.

        Of one's own pictures also those that were read wrongly. One that cannot be used does not
        stop the others: the command ends as `jaxnn classify` does then, by exit code 2.
        """
        from jaxnn import answers, calibration, data
        from jaxnn.commands import hearing, inputs

        if self.images and self.data:
            raise ConfigError("--images and --data exclude each other: measure on one at a time")
        hears = self.model is not None and hearing.hears(self.model)
        if hears and self.images:
            raise ConfigError(f"{self.model} hears words, --images are pictures: give --data")
        if self.speaker and not hears:
            raise ConfigError("--speaker is for a model that hears words: name its file")
        file = (hearing if hears else inputs).load_model(self.model)
        own = inputs.own_pictures(self.images) if self.images else None
        dataset = (
            data.Dataset(own.images[:0], own.labels[:0], own.images, own.labels)
            if own
            else hearing.test_part(self.data, self.speaker)
            if hears
            else data.load(self.data)
        )
        result = inputs.evaluate(file, dataset)
        count = len(dataset.test_labels)
        chances = calibration.probabilities(result.scores, file.spec.output, file.temperature)
        trust = calibration.reliability(chances, dataset.test_labels)
        say(
            f"test accuracy {result.accuracy:.2%}, cost {result.cost:.4f} on {count:,} "
            f"{'recordings' if hears else 'images'}",
            self.json,
        )
        say(
            f"expected calibration error {trust.ece:.4f} at temperature {file.temperature:.4g}",
            self.json,
        )
        found = answers.judged(file, dataset.test_images, result.scores)
        more: dict[str, Any] = {}
        if file.familiar is not None:
            more |= accepted_of(found, dataset.test_labels)
            say(accepted_text(more), self.json)
        if file.spec.members > 1:
            agreement = agreement_of(file, dataset, result)
            more |= agreement
            say(agreement_text(agreement), self.json)
        say(confusion_text(result.confusion), self.json)
        if own:
            inputs.note_training_pictures(file, own)
            wrong = wrong_table(own, found)
            more |= {"wrong": wrong, "left_out": len(own.unread), "unread": own.unread}
            say(wrong_text(wrong), self.json)
        write_json(
            self.json,
            {
                "test_accuracy": result.accuracy,
                "test_cost": result.cost,
                "test_images": count,
                "temperature": file.temperature,
                "expected_calibration_error": trust.ece,
                "confidence_bins": bins_table(trust),
                **more,
                "confusion": result.confusion.tolist(),
            },
        )
        if own and own.left_out:
            raise DataError(own.left_out)


def accepted_of(found: "Answers", labels: "np.ndarray") -> dict[str, Any]:
    """The part of the images that look like digits to the model, and how right it is on them."""
    accepted = ~found.rejected
    right = found.labels[accepted] == labels[accepted]
    return {
        "accepted": float(accepted.mean()),
        "accuracy_where_accepted": float(right.mean()) if accepted.any() else None,
    }


def accepted_text(found: dict[str, Any]) -> str:
    """The same as a sentence."""
    right = found["accuracy_where_accepted"]
    rest = "" if right is None else f", {right:.2%} right on them"
    return f"accepts {found['accepted']:.2%} of the images as digits{rest}"


def wrong_table(own: "Pictures", found: "Answers") -> list[dict[str, Any]]:
    """The pictures that were read wrongly, from the surest: a wrong label comes first, too.

    Those that were rejected come last.
    """
    import numpy as np

    order = np.lexsort((-found.confidence, found.rejected))
    return [
        {
            "file": own.files[index],
            "label": int(own.labels[index]),
            "read_as": int(found.labels[index]),
            "confidence": float(found.confidence[index]),
            "rejected": bool(found.rejected[index]),
        }
        for index in order
        if found.labels[index] != own.labels[index]
    ]


def wrong_text(wrong: list[dict[str, Any]]) -> str:
    """The first of them, a line each."""
    from jaxnn.data.picture_files import shown

    lines = [
        f"{shown(one['file'])}: {one['label']}, read as {one['read_as']}, "
        f"confidence {one['confidence']:.3f}{', rejected' if one['rejected'] else ''}"
        for one in wrong[:MOST_SHOWN]
    ]
    if len(wrong) > MOST_SHOWN:
        lines.append(f"... and {len(wrong) - MOST_SHOWN:,} more")
    return "\n".join(["wrong:" if wrong else "none wrong", *lines])


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
