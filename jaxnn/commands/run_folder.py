"""A training run on disk: the model for others, the state to go on from, the log to read.

model.safetensors   the best network so far
state.safetensors   everything that training needs to go on exactly
log.jsonl           one JSON object an epoch
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnn import calibration, checkpoint, metrics, models
from jaxnn.config import TrainConfig
from jaxnn.epoch import spec_of
from jaxnn.errors import CheckpointError, ConfigError, RunError
from jaxnn.files import write_aside
from jaxnn.train import EpochReport, TrainState, initial_state


def new_folder(parent: Path) -> Path:
    """The first of parent/1, parent/2 ... that is not there; made at once, so never taken twice."""
    for number in range(1, 100_000):
        folder = parent / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"{folder} could not be made: {error.strerror}") from error
        return folder
    raise RunError(f"{parent} is full of runs: name a folder by --out")


class RunFolder:
    """The three files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model.safetensors"
        self.state = path / "state.safetensors"
        self.log = path / "log.jsonl"

    def has_run(self) -> bool:
        """Whether a run was begun here."""
        return self.model.exists() or self.state.exists()

    def config(self) -> dict[str, Any]:
        """The recorded settings.

        Raises:
          CheckpointError: nothing to go on from, or a damaged state.
        """
        if not self.state.exists():
            begin = (
                "begin again by --overwrite" if self.has_run() else "leave --resume out to begin"
            )
            raise CheckpointError(f"{self.path} holds no state.safetensors to resume: {begin}")
        return checkpoint.read(self.state, "state").header["config"]

    def check_data(self, about: dict[str, Any]) -> None:
        """Raises ConfigError where the run was made with other data."""
        before = checkpoint.read(self.state, "state").header["data"]
        if before != about:
            raise ConfigError(
                f"the run in {self.path} was made with other data "
                f"({before['train_images']:,} training images, checksum "
                f"{before['checksum'][:12]}...): name the same --data"
            )

    def load_state(self, config: TrainConfig, examples: int) -> TrainState:
        """The saved state, fitted to what the settings make."""
        contents = checkpoint.read(self.state, "state")
        like = jax.eval_shape(lambda: _arrays(initial_state(config, examples)))
        arrays = checkpoint.restore(contents, like, self.state)
        return TrainState(**arrays, **contents.header["progress"])

    def start_log(self, epochs: int) -> None:
        """Keeps the log's lines of the epochs that the state knows of; begins anew for none.

        Anew, an old state goes at once: it does not belong to the models to come.
        """
        for part in self.path.glob(".*.part"):  # of a process that was killed
            part.unlink()
        if not epochs:
            self.state.unlink(missing_ok=True)
        lines = self.log.read_bytes().splitlines() if epochs and self.log.exists() else []
        kept = [line for line in lines if _epoch_of(line) in range(1, epochs + 1)]
        write_aside(self.log, b"".join(line + b"\n" for line in kept))

    def save(
        self, config: TrainConfig, data: dict[str, Any], state: TrainState, report: EpochReport
    ) -> None:
        """Writes all three after an epoch: the model only if it is new, the state last."""
        if report.best:
            self.save_model(config, data, state, {})
        with self.log.open("a") as log:
            log.write(json.dumps(report._asdict()) + "\n")
        header = {
            "config": dataclasses.asdict(config),
            "data": data,
            "progress": {
                name: value for name, value in state._asdict().items() if name not in _ARRAYS
            },
        }
        checkpoint.write(self.state, "state", _arrays(state), header)

    def save_model(
        self,
        config: TrainConfig,
        data: dict[str, Any],
        state: TrainState,
        metrics: dict[str, float],
        temperature: float | None = None,
    ) -> None:
        """Writes the best network."""
        write_model(
            self.model, state.best_params, config, data, state.best_epoch, metrics, temperature
        )


def write_model(
    path: Path,
    params: Any,
    config: TrainConfig,
    data: dict[str, Any],
    best_epoch: int,
    metrics: dict[str, float],
    temperature: float | None = None,
    members: int = 1,
) -> None:
    """Writes a trained network, or an ensemble, with the command that makes it again."""
    training = {
        **dataclasses.asdict(config),
        "best_epoch": best_epoch,
        "command": command_of(config, data["name"], members),
    }
    checkpoint.save(
        path,
        params,
        spec_of(config)._replace(members=members),
        training=training,
        data=data,
        metrics=metrics,
        temperature=temperature,
    )


def temperature_of(
    params: Any, config: TrainConfig, images: np.ndarray, labels: np.ndarray, members: int = 1
) -> float:
    """The calibration of a network, from images uint8 [L, n_in] that the test does not use."""
    model = models.build(spec_of(config)._replace(members=members))
    scores = metrics.scores(params, images, model=model)
    return calibration.fit_temperature(scores, labels, config.output)


def _epoch_of(line: bytes) -> Any:
    """The epoch that a line of the log tells of; None where it is no such line."""
    try:
        return json.loads(line)["epoch"]
    except (ValueError, TypeError, KeyError):
        return None


def command_of(config: TrainConfig, data_name: str, members: int = 1) -> str:
    """The command line that makes such a run again; settings at their default are left out.

    For an ensemble, the first of its seeds is the configuration's.
    """
    words = ["jaxnn", "train"] if members == 1 else ["jaxnn", "sweep", "--seeds", str(members)]
    if data_name != "MNIST, embedded part":
        words += ["--data", "mnist" if data_name == "MNIST, whole" else "DIR"]
    for setting in dataclasses.fields(config):
        value = getattr(config, setting.name)
        if value != setting.default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{setting.name.replace('_', '-')}", *map(str, values)]
    return " ".join(words)


_ARRAYS = ("params", "opt_state", "best_params")


def _arrays(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in _ARRAYS}
