"""A training run on disk: the model for others, the state to go on from, the log to read.

model.safetensors   the best network so far
state.safetensors   everything that training needs to go on exactly
log.jsonl           one JSON object an epoch
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import calibration, checkpoint, metrics, models, novelty, recipes
from jaxnn.commands.output import json_text
from jaxnn.commands.record import MODEL, STATE, Record
from jaxnn.commands.training_data import TrainingData
from jaxnn.config import TrainConfig
from jaxnn.epoch import spec_of
from jaxnn.errors import ConfigError, RunError
from jaxnn.files import write_aside
from jaxnn.novelty import Familiar
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


@contextlib.contextmanager
def filled(path: Path | None, parent: Path) -> Iterator[Path]:
    """A folder to fill: `path`, or else a new one in `parent`; it goes if nothing came into it.

    Raises:
      ConfigError: `path` cannot be made.
    """
    new = path is None or not path.exists()
    try:
        folder = path or new_folder(parent)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {path} could not be made: {error.strerror}") from error
    try:
        yield folder
    finally:
        if new:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


class RunFolder:
    """The three files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / MODEL
        self.state = path / STATE
        self.log = path / "log.jsonl"

    def has_run(self) -> bool:
        """Whether a run was begun here."""
        return self.model.exists() or self.state.exists()

    def load_state(
        self, record: Record, source: TrainingData, config: TrainConfig, examples: int
    ) -> TrainState:
        """The saved state, fitted to what the settings make.

        Raises:
          ConfigError: the run was made with other data.
          CheckpointError: a damaged state.
        """
        if record.data != source.about:
            raise ConfigError(
                f"the run in {self.path} was made with other data "
                f"({record.data['train_images']:,} training images, checksum "
                f"{record.data['checksum'][:12]}...): name the same --data and --images"
            )
        contents = checkpoint.read(self.state, "state")
        like = jax.eval_shape(lambda: _arrays(initial_state(config, examples)))
        arrays = checkpoint.restore(contents, like, self.state)
        return TrainState(**arrays, **record.progress)

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
        self, config: TrainConfig, source: TrainingData, state: TrainState, report: EpochReport
    ) -> None:
        """Writes all three after an epoch: the model only if it is new, the state last."""
        if report.best:
            self.save_model(config, source, state, {})
        with self.log.open("a") as log:
            log.write(json_text(report._asdict()) + "\n")
        header = {
            "config": dataclasses.asdict(config),
            "stream": source.streamed,
            "data": source.about,
            "progress": {
                name: value for name, value in state._asdict().items() if name not in _ARRAYS
            },
        }
        checkpoint.write(self.state, "state", _arrays(state), header)

    def save_model(
        self,
        config: TrainConfig,
        source: TrainingData,
        state: TrainState,
        metrics: dict[str, float],
        trust: "Trust | None" = None,
    ) -> None:
        """Writes the best network."""
        write_model(self.model, state.best_params, config, source, state.best_epoch, metrics, trust)


def write_model(
    path: Path,
    params: Any,
    config: TrainConfig,
    source: TrainingData,
    best_epoch: int,
    metrics: dict[str, float],
    trust: "Trust | None" = None,
    *,
    swept: int = 1,
    members: Sequence[int] = (),
) -> None:
    """Writes a trained network, or an ensemble, with the command that makes it again.

    Args:
      path: the file.
      params: of the network; of an ensemble, with a leading axis.
      config: how it was trained; of an ensemble, with the first seed of the sweep.
      source: what it was trained on.
      best_epoch: the epoch that made it.
      metrics: figures measured on it.
      trust: how far to trust its answers.
      swept: of an ensemble, networks of its setting that were trained.
      members: of an ensemble, their seeds.
    """
    # A model travels: it says which file taught it, and not in which of one's folders that lay.
    config = dataclasses.replace(config, teacher=Path(config.teacher).name)
    training = {
        **dataclasses.asdict(config),
        "best_epoch": best_epoch,
        "stream": source.streamed,
        "command": command_of(config, source, swept),
    }
    if members:
        training["seeds"] = list(members)
    own = {"own_pictures": source.own.checksum} if source.own else {}
    checkpoint.save(
        path,
        params,
        spec_of(config)._replace(members=len(members) or 1),
        training=training,
        data={**source.about, **own},
        metrics=metrics,
        half=config.half,
        **(trust._asdict() if trust else {}),
    )


class Trust(NamedTuple):
    """How far a network's answers can be trusted."""

    temperature: float
    familiar: Familiar | None


def trust_of(
    params: Any,
    config: TrainConfig,
    images: np.ndarray,
    labels: np.ndarray,
    members: int = 1,
    *,
    familiar: bool = True,
) -> Trust:
    """How far to trust a network, from images uint8 [L, n_in] that the test does not use.

    `familiar` is for pictures: what `novelty` measures says nothing about steps of sound.
    """
    model = models.build(spec_of(config)._replace(members=members))
    scores = metrics.scores(params, images, model=model)
    temperature = calibration.fit_temperature(scores, labels, config.output)
    if not familiar:
        return Trust(temperature, None)
    sure = calibration.probabilities(scores, config.output, temperature)
    return Trust(temperature, novelty.fit(images, labels, sure))


def _epoch_of(line: bytes) -> Any:
    """The epoch that a line of the log tells of; None where it is no such line."""
    try:
        return json.loads(line)["epoch"]
    except (ValueError, TypeError, KeyError):
        return None


def command_of(config: TrainConfig, source: TrainingData, swept: int = 1) -> str:
    """The command line that makes such a run again; settings that it begins with are left out.

    Args:
      config: the settings; of an ensemble, with the first seed of the sweep.
      source: the data.
      swept: networks of this setting that a sweep trains; 1 is a run of `jaxnn train`.
    """
    task = "--task" in source.flags  # which decides what a run begins with, or else the family
    defaults = dataclasses.asdict(recipes.SPEECH if task else recipes.STARTS[config.family])
    if not task and config.family != TrainConfig.family:
        defaults["family"] = None  # say it always
    words = ["jaxnn", "train"]
    if swept > 1:
        words = ["jaxnn", "sweep", "--seeds", str(swept)]
        words += ["--own-shuffles"] * (config.shuffle_seed is None)
        defaults["validation"] = None  # a sweep has another: say it always
    words += source.flags
    for name, default in defaults.items():
        value = getattr(config, name)
        if value is not None and value != default:
            values = value if isinstance(value, tuple) else () if value is True else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return " ".join(words)


_ARRAYS = ("params", "opt_state", "best_params")


def _arrays(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in _ARRAYS}
