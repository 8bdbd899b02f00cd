"""`jaxnn train`."""

import dataclasses
import shlex
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxnn.commands import record as records
from jaxnn.commands.output import say, write_json
from jaxnn.commands.settings import (
    check_resumed,
    check_targets,
    choose_threads,
    devices_of,
    largest_product,
    provide_devices,
    reparsed,
)
from jaxnn.config import TrainConfig
from jaxnn.errors import ConfigError, DataError, RunError
from jaxnn.recipes import COPIES, RECIPES, SPEECH, STARTS

if TYPE_CHECKING:
    from jaxnn.commands.run_folder import RunFolder
    from jaxnn.commands.training_data import TrainingData
    from jaxnn.feed import Feed
    from jaxnn.train import EpochReport, TrainState


@dataclass(frozen=True)
class Train:
    """Train a network; its folder gets model.safetensors, state.safetensors and log.jsonl."""

    config: TrainConfig = field(default_factory=TrainConfig)
    recipe: Literal["classic", "best"] | None = None
    """Begin with these settings; docs/accuracy.md tells about them. Other flags change them."""
    task: Literal["images", "speech"] = "images"
    """What is learned: written digits, or spoken ones, for which docs/speech.md tells more."""
    data: str | None = None
    """embedded, mnist (see `jaxnn data download`), or a folder of IDX files; else $JAXNN_DATA. Of
    speech: a folder or zip of files such as 7_anna_12.wav, or fsdd, the downloaded set."""
    speaker: str | None = None
    """Of speech: keep all recordings of this speaker for testing, and learn from the others'."""
    copies: int = COPIES
    """Of speech: variations of each recording to learn from, beside itself."""
    images: Path | None = None
    """Train on pictures of your own: a folder laid out as LABEL/*.png, or a CSV of file,label; with
    --data, on both. A fifth of each digit is kept for testing."""
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
        check_targets(self.out, self.json)
        self.check_task()
        config, record = self.config, None
        if self.resume:
            if self.out is None:
                raise ConfigError("--resume needs --out: name the run's folder")
            if self.recipe:
                raise ConfigError(
                    "--resume goes on with the run's own settings: leave out --recipe"
                )
            record = records.read(self.out)
            config = reparsed(Train, argv, record.config)
            check_resumed(self.out, record, config, self.stream)
        elif self.recipe:
            config = reparsed(Train, argv, RECIPES[self.recipe])
        elif self.task == "speech":
            config = reparsed(Train, argv, SPEECH)
        elif config.family != "mlp":
            config = reparsed(Train, argv, STARTS[config.family])
        if config.family == "mlp":
            choose_threads(largest_product(config))
        if not self.resume:  # goes on with as many: their sums are rounded otherwise
            config = dataclasses.replace(config, devices=devices_of(config))
        provide_devices(config.devices)
        from jaxnn import compile_cache

        if not self.no_cache:
            compile_cache.enable()
        from jaxnn import teacher, train
        from jaxnn.commands import training_data
        from jaxnn.commands.run_folder import RunFolder, new_folder
        from jaxnn.commands.tensorboard import EventLog
        from jaxnn.terminal import TrainingDisplay

        if self.out and not (record or self.overwrite) and RunFolder(self.out).has_run():
            raise ConfigError(
                f"{self.out} holds a run: go on with it by --resume, start anew by --overwrite, "
                "or name another --out"
            )
        config = dataclasses.replace(config, teacher_checksum=teacher.checksum(config))
        if self.task == "speech":
            source = training_data.spoken(self.data, config, self.speaker, self.copies)
        else:
            source = training_data.load(self.data, self.stream, self.images)
        feed = source.feed(config)
        state = None
        if self.out and record:
            state = RunFolder(self.out).load_state(record, source, config, feed.examples)
            if state.epoch == config.epochs:
                say(
                    f"{self.out} has {state.epoch} epochs already: ask for more by --epochs",
                    self.json,
                )
        reports: list[EpochReport] = []
        with ExitStack() as until_done:
            events = None
            if self.tensorboard:  # before anything of an old run goes
                events = until_done.enter_context(closing(EventLog(self.tensorboard)))
            folder = RunFolder(self.out or new_folder(Path("runs")))
            folder.start_log(state.epoch if state else 0)
            display = TrainingDisplay(config.epochs, state.epoch if state else 0)
            until_done.enter_context(display)

            def on_epoch(state: "TrainState", report: "EpochReport") -> None:
                display.epoch(
                    report.epoch,
                    report.cost,
                    report.held_out_cost,
                    report.held_out_accuracy,
                    report.images_per_second,
                )
                reports.append(report)
                folder.save(config, source, state, report)
                if events:
                    events.epoch(report)

            try:
                state = train.fit(config, feed, state=state, on_epoch=on_epoch)
            except KeyboardInterrupt:
                raise self.interrupted(folder) from None
        self.report(folder, config, source, feed, state, reports)
        if source.own and source.own.left_out:  # the others were trained on; see `jaxnn eval`
            raise DataError(source.own.left_out)

    def check_task(self) -> None:
        """Raises ConfigError where flags do not go with the task."""
        if self.task == "speech" and (self.recipe or self.images or self.stream):
            raise ConfigError(
                "--recipe, --images and --stream are for pictures: leave them out with --task "
                "speech"
            )
        if self.task != "speech" and (self.speaker or self.copies != COPIES):
            raise ConfigError("--speaker and --copies are for --task speech: name it, too")

    def interrupted(self, folder: "RunFolder") -> RunError:
        """What Ctrl-C has left, and how to go on."""
        kept = "no epoch was done, nothing is saved"
        if folder.state.exists():
            flags = f" --data {shlex.quote(self.data)}" if self.data else ""
            flags += f" --task speech --copies {self.copies}" * (self.task == "speech")
            flags += f" --speaker {shlex.quote(self.speaker)}" if self.speaker else ""
            flags += f" --images {shlex.quote(str(self.images))}" if self.images else ""
            flags += " --stream" * self.stream
            kept = (
                f"the best network so far is in {folder.model}; go on by `jaxnn train "
                f"--resume --out {shlex.quote(str(folder.path))}{flags}`"
            )
        return RunError(f"interrupted: {kept}")

    def report(
        self,
        folder: "RunFolder",
        config: TrainConfig,
        source: "TrainingData",
        feed: "Feed",
        state: "TrainState",
        reports: "list[EpochReport]",
    ) -> None:
        """Measures the best network on the test images, writes it down and says so."""
        from jaxnn import arrays, metrics, models, train
        from jaxnn.commands.run_folder import trust_of
        from jaxnn.commands.training_data import apart_text, measured_apart

        model = models.build(train.spec_of(config))
        if config.half:  # what is measured is what the file will hold
            state = state._replace(best_params=arrays.widened(arrays.halved(state.best_params)))
        result = metrics.evaluate(
            state.best_params, source.test_images, source.test_labels, model=model
        )
        apart = measured_apart(source, result.scores)
        folder.save_model(
            config,
            source,
            state,
            {"test_accuracy": result.accuracy, "test_cost": result.cost, **apart},
            trust_of(
                state.best_params,
                config,
                feed.calibration_images,
                feed.calibration_labels,
                familiar=self.task == "images",
            ),
        )
        speeds = sorted(report.images_per_second for report in reports)
        say(
            f"test accuracy {result.accuracy:.2%}, cost {result.cost:.4f} on "
            f"{len(source.test_labels):,} {source.things}, by epoch {state.best_epoch}; "
            f"saved in {folder.model}",
            self.json,
        )
        if source.own and source.own.mixed_in:
            say(apart_text(source, apart), self.json)
        write_json(
            self.json,
            {
                "test_accuracy": result.accuracy,
                "test_cost": result.cost,
                **apart,
                "best_epoch": state.best_epoch,
                "epochs": state.epoch,
                "images_per_second": speeds[len(speeds) // 2] if speeds else None,
                "model": str(folder.model),
                "config": dataclasses.asdict(config),
                "history": [report._asdict() for report in reports],
            },
        )
