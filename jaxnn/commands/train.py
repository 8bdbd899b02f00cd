"""`jaxnn train`."""

import dataclasses
import itertools
import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxnn.commands.output import say, write_json
from jaxnn.config import TrainConfig
from jaxnn.errors import ConfigError, DataError, RunError
from jaxnn.recipes import RECIPES

if TYPE_CHECKING:
    from jaxnn.commands.training_data import TrainingData
    from jaxnn.feed import Feed
    from jaxnn.train import EpochReport, TrainState

THREADS_PAY_FROM = 10_000_000  # multiplications; measured on 2 cores


@dataclass(frozen=True)
class Train:
    """Train a network; its folder gets model.safetensors, state.safetensors and log.jsonl."""

    config: TrainConfig = field(default_factory=TrainConfig)
    recipe: Literal["classic", "best"] | None = None
    """Begin with these settings; docs/accuracy.md tells about them. Other flags change them."""
    data: str | None = None
    """embedded, mnist (see `jaxnn data download`), or a folder of IDX files; else $JAXNN_DATA."""
    stream: bool = False
    """Read the training images from --data chunk by chunk, for sets larger than the memory: a
    folder of unpacked IDX files, or of train-images.npy and train-labels.npy."""
    out: Path | None = None
    """The run's folder; runs/1, runs/2 ... where not given."""
    resume: bool = False
    """Go on with the run in --out, with the settings it has; only --epochs may change."""
    overwrite: bool = False
    """Start anew although --out holds a run."""
    tensorboard: Path | None = None
    """Write TensorBoard event files to this folder, too."""
    no_cache: bool = False
    """Compile anew, and keep nothing compiled for the next time."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Trains, showing each epoch and saving after it; Ctrl-C keeps the best network so far."""
        config = self.config
        if self.recipe:
            config = reparsed(argv, RECIPES[self.recipe])
        if self.resume and self.out is None:
            raise ConfigError("--resume needs --out: name the run's folder")
        if largest_product(config) < THREADS_PAY_FROM:
            # XLA reads this when JAX is loaded: its second thread costs such a small network more
            # in waking up than it computes (benchmarks/epoch.py measures both).
            os.environ.setdefault("NPROC", "1")
        from jaxnn import compile_cache

        if not self.no_cache:
            compile_cache.enable()
        from jaxnn import train
        from jaxnn.commands import training_data
        from jaxnn.commands.run_folder import RunFolder, new_folder
        from jaxnn.commands.tensorboard import EventLog
        from jaxnn.terminal import TrainingDisplay

        for name, path in (("out", self.out), ("json", self.json)):
            if path and Path(path).exists() and Path(path).is_dir() != (name == "out"):
                raise ConfigError(
                    f"--{name} {path} is a {'file' if name == 'out' else 'folder'}, "
                    f"expected a {'folder' if name == 'out' else 'file'}"
                )
        if self.resume and self.out:
            config = recorded_config(RunFolder(self.out).config(), self, argv)
        elif self.out and not self.overwrite and RunFolder(self.out).has_run():
            raise ConfigError(
                f"{self.out} holds a run: go on with it by --resume, start anew by --overwrite, "
                "or name another --out"
            )
        source = training_data.load(self.data, self.stream)
        feed = source.feed(config)
        folder = RunFolder(self.out or new_folder(Path("runs")))
        state = None
        if self.resume:
            folder.check_data(source.about)
            state = folder.load_state(config, feed.examples)
            if state.epoch > config.epochs:
                raise ConfigError(
                    f"{folder.path} has {state.epoch} epochs, --epochs is {config.epochs}: "
                    "ask for at least as many"
                )
            if state.epoch == config.epochs:
                say(
                    f"{folder.path} has {state.epoch} epochs already: ask for more by --epochs",
                    self.json,
                )
        folder.start_log(state.epoch if state else 0)
        events = EventLog(self.tensorboard) if self.tensorboard else None
        reports: list[EpochReport] = []
        with TrainingDisplay(config.epochs, state.epoch if state else 0) as display:

            def on_epoch(state: "TrainState", report: "EpochReport") -> None:
                display.epoch(
                    report.epoch,
                    report.cost,
                    report.held_out_cost,
                    report.held_out_accuracy,
                    report.images_per_second,
                )
                reports.append(report)
                folder.save(config, source.about, state, report)
                if events:
                    events.epoch(report)

            try:
                state = train.fit(config, feed, state=state, on_epoch=on_epoch)
            except KeyboardInterrupt:
                kept = "no epoch was done, nothing is saved"
                if folder.state.exists():
                    data_flag = f" --data {shlex.quote(self.data)}" if self.data else ""
                    data_flag += " --stream" * self.stream
                    kept = (
                        f"the best network so far is in {folder.model}; go on by `jaxnn train "
                        f"--resume --out {shlex.quote(str(folder.path))}{data_flag}`"
                    )
                raise RunError(f"interrupted: {kept}") from None
            finally:
                if events:
                    events.close()
        self.report(folder, config, source, feed, state, reports)

    def report(
        self,
        folder: Any,
        config: TrainConfig,
        source: "TrainingData",
        feed: "Feed",
        state: "TrainState",
        reports: "list[EpochReport]",
    ) -> None:
        """Measures the best network on the test images, writes it down and says so."""
        from jaxnn import metrics, models, train
        from jaxnn.commands.run_folder import temperature_of

        model = models.build(train.spec_of(config))
        result = metrics.evaluate(
            state.best_params, source.test_images, source.test_labels, model=model
        )
        folder.save_model(
            config,
            source.about,
            state,
            {"test_accuracy": result.accuracy, "test_cost": result.cost},
            temperature_of(
                state.best_params, config, feed.calibration_images, feed.calibration_labels
            ),
        )
        speeds = sorted(report.images_per_second for report in reports)
        say(
            f"test accuracy {result.accuracy:.2%}, cost {result.cost:.4f} on "
            f"{len(source.test_labels):,} images, by epoch {state.best_epoch}; "
            f"saved in {folder.model}",
            self.json,
        )
        write_json(
            self.json,
            {
                "test_accuracy": result.accuracy,
                "test_cost": result.cost,
                "best_epoch": state.best_epoch,
                "epochs": state.epoch,
                "images_per_second": speeds[len(speeds) // 2] if speeds else None,
                "model": str(folder.model),
                "config": dataclasses.asdict(config),
                "history": [report._asdict() for report in reports],
            },
        )


def largest_product(config: TrainConfig) -> int:
    """Multiplications in a step's largest matrix product."""
    pairs = itertools.pairwise(config.sizes)
    return config.batch_size * max((n_in * n_out for n_in, n_out in pairs), default=0)


def recorded_config(recorded: dict[str, Any], given: Train, argv: list[str]) -> TrainConfig:
    """The settings of the run, with the epochs that the command line asks for.

    The same words are parsed again with the run's settings as defaults, so that only what was
    really given can differ.

    Raises:
      ConfigError: another setting than epochs was given and differs.
      DataError: the recorded settings cannot be read.
    """
    try:
        before = TrainConfig(**{**recorded, "sizes": tuple(recorded["sizes"])})
    except (TypeError, KeyError) as error:
        raise DataError(f"the run in {given.out} was made by another version of jaxnn") from error
    after = reparsed(argv, before)
    for name, value in dataclasses.asdict(before).items():
        if name != "epochs" and getattr(after, name) != value:
            raise ConfigError(
                f"the run in {given.out} has {name} {json.dumps(value)}, not "
                f"{json.dumps(getattr(after, name))}: only --epochs may change on --resume"
            )
    fixed = "a cosine schedule" if before.schedule != "constant" else "changes that fade"
    if after.epochs != before.epochs and (before.schedule != "constant" or before.fade):
        raise ConfigError(
            f"the run in {given.out} has {fixed} over {before.epochs} epochs: "
            "its length cannot change on --resume"
        )
    return after


def reparsed(argv: list[str], default: TrainConfig) -> TrainConfig:
    """These settings, changed by the flags that a command line really gives."""
    import tyro

    words = argv[argv.index("train") + 1 :]
    return tyro.cli(
        Train,
        default=Train(config=default),
        args=words,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    ).config
