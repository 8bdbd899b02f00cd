"""What the pictures of `jaxnn plot` are made of: models, digits, training logs."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxnn.commands import hearing, inputs
from jaxnn.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from jaxnn.checkpoint import ModelFile


SHORT_RUN = 20  # epochs that `plot costs` trains where no run is named
MAX_LOG_BYTES = 2**26
LOOKS = {
    "mlp": "`jaxnn plot weights`, `jaxnn plot activations` or `jaxnn explain digit`",
    "cnn": "`jaxnn plot filters`, `jaxnn plot features` or `jaxnn explain digit`",
    "lstm": "`jaxnn plot gates` or `jaxnn explain digit`",
}  # what shows the inside of each family
FIELDS = ("epoch", "cost", "held_out_cost", "held_out_accuracy")


@dataclass(frozen=True)
class OfModel:
    """What every picture of a network asks for."""

    model: Annotated[Path | None, tyro.conf.Positional] = None
    """A model file; the one that ships with jaxnn where not given."""


@dataclass(frozen=True)
class OfModelAndDigits(OfModel):
    """And what those ask for that show digits."""

    data: str | None = None
    """embedded, mnist, or a folder of IDX files; else $JAXNN_DATA."""


def looked_into(path: Path | None, family: str) -> "ModelFile":
    """A single network of one family, for digits; the shipped one where none is named.

    Raises:
      CheckpointError: the file cannot be used.
      ConfigError: another family, an ensemble, or a network that sees no pixels of a digit.
    """
    return _single(inputs.load_model(path), path, family)


def listened_to(path: Path) -> "ModelFile":
    """A single lstm that hears words; raises as `looked_into`."""
    return _single(hearing.load_model(path), path, "lstm")


def _single(file: "ModelFile", path: Path | None, family: str) -> "ModelFile":
    if file.spec.family != family:
        raise ConfigError(
            f"{path} is of the family {file.spec.family}, but this looks into networks of the "
            f"family {family}: see {LOOKS[file.spec.family]} for it"
        )
    if file.spec.members > 1:
        raise ConfigError(
            f"{path} is an ensemble of {file.spec.members} networks, but this looks into the "
            "layers of one: name the model file of a single network"
        )
    return file


def read_log(path: Path) -> "dict[str, np.ndarray]":
    """FIELDS of every epoch in a run's log, each [epochs].

    Raises:
      DataError: missing, too large, empty, or a line that is not an epoch's record.
    """
    import numpy as np

    try:
        if path.stat().st_size > MAX_LOG_BYTES:
            raise DataError(f"{path} is larger than a log can be, {MAX_LOG_BYTES:,} bytes")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(
            f"{path} could not be read ({error.strerror}): name a folder that `jaxnn train` made"
        ) from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = [float(json.loads(line)[field]) for field in FIELDS]
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            row = [np.nan]
        if not np.all(np.isfinite(row)):
            raise DataError(f"{path}, line {number}, is no epoch with {', '.join(FIELDS)}")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no epoch yet: let `jaxnn train` do at least one")
    return dict(zip(FIELDS, np.array(rows).T, strict=True))


def read_sweep(path: Path) -> dict[str, Any]:
    """What `jaxnn sweep` wrote.

    Raises:
      DataError: missing, too large, or something else.
    """
    try:
        if path.stat().st_size > MAX_LOG_BYTES:
            raise DataError(f"{path} is larger than a sweep can be, {MAX_LOG_BYTES:,} bytes")
        result = json.loads(path.read_bytes())
        for setting in result["settings"]:
            float(setting["learning_rate"]), setting["momentum"], list(setting["sizes"])
            scores = [result["networks"][k]["score"] for k in setting["networks"]]
            if not all(score is None or math.isfinite(score) for score in scores):
                raise ValueError("a score that is no number")  # noqa: TRY301
        float(result["networks"][result["best"]]["score"]), str(result["chosen_by"])
    except OSError as error:
        raise DataError(
            f"{path} could not be read ({error.strerror}): name a folder that `jaxnn sweep` made"
        ) from error
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} holds no sweep: run `jaxnn sweep` again") from error
    return result


def short_sweep() -> dict[str, Any]:
    """A small sweep of three rates on the embedded digits."""
    from jaxnn import data as datasets
    from jaxnn import ensemble
    from jaxnn.commands import sweep_results
    from jaxnn.commands.sweep import Swept

    dataset = datasets.load("embedded")
    swept = Swept(learning_rate=(1.0, 3.0, 10.0), epochs=SHORT_RUN, seeds=3)
    trained = ensemble.fit(swept.configs(len(dataset.train_images)), dataset)
    return sweep_results.compared(trained)


def short_run() -> "tuple[dict[str, np.ndarray], str]":
    """The history of a short training run on the embedded digits, and its title."""
    import numpy as np

    from jaxnn import data as datasets
    from jaxnn import train

    print(f"no run named: training {SHORT_RUN} epochs on the embedded digits")
    reports: list[train.EpochReport] = []
    train.fit(
        train.TrainConfig(epochs=SHORT_RUN),
        datasets.load("embedded"),
        on_epoch=lambda state, report: reports.append(report),
    )
    history = {field: np.array([getattr(one, field) for one in reports]) for field in FIELDS}
    return history, f"{SHORT_RUN} epochs of `jaxnn train` on the embedded digits"


def save(fig: Any, path: Path) -> None:
    """Writes a figure and says where."""
    from jaxnn.plots import style

    style.save(fig, path)
    print(f"drawn: {path}")
