"""`jaxnn sweep`: many networks in one program."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxnn.commands.output import json_text, say, write_json
from jaxnn.commands.settings import check_targets, choose_threads, largest_product, reparsed
from jaxnn.config import TrainConfig
from jaxnn.errors import ConfigError, RunError
from jaxnn.recipes import RECIPES, STARTS

if TYPE_CHECKING:
    from jaxnn.data import Dataset
    from jaxnn.ensemble import Progress, Trained

MOST = 100_000  # networks; long before, the memory is full


def _commas(kind: Callable[[str], Any]) -> Any:
    """Values between commas, as one word of the command line: 0.3,1,3."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,...",
        instance_from_str=lambda words: tuple(kind(word) for word in words[0].split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: [",".join(map(str, values))],
    )


@dataclass(frozen=True)
class Swept(TrainConfig):
    """The settings of `jaxnn train`, some of them with several values."""

    learning_rate: Annotated[tuple[float, ...], _commas(float)] = (3.0,)  # type: ignore[assignment]
    """Step sizes to try, between commas."""
    momentum: Annotated[tuple[float, ...], _commas(float)] = ()  # type: ignore[assignment]
    """Momenta to try, between commas, for an optimiser that takes one, such as sgd."""
    hidden: Annotated[tuple[int, ...], _commas(int)] = ()
    """Widths of every hidden layer to try, between commas, in place of those of sizes."""
    seeds: int = 4
    """Networks for each setting, with the seeds from seed on."""
    shuffle_seed: int | None = 0
    """Decides the shuffles and changes of the images, which all networks share."""
    own_shuffles: bool = False
    """Shuffle for each seed anew, in place of shuffle_seed; takes longer."""
    validation: int | None = None  # type: ignore[assignment]
    """Images taken from the end of the training set to choose by; a sixth where not given."""

    def check(self) -> None:
        """Raises ConfigError where the settings to try make no sense, whatever the data."""
        for name, least in (("seeds", 1), ("epochs", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: a sweep needs {least} or more")
        tried = {name: getattr(self, name) for name in ("learning_rate", "momentum", "hidden")}
        for name, values in tried.items():
            if len(set(values)) < len(values):
                raise ConfigError(
                    f"--{name.replace('_', '-')} is {','.join(map(str, values))}: "
                    "name each value once"
                )
        if self.hidden and len(self.sizes) < 3:
            raise ConfigError(
                f"--hidden sets the widths of hidden layers, but sizes are {self.sizes}: "
                "give --sizes three or more"
            )
        if self.own_shuffles and self.shuffle_seed not in (0, None):
            raise ConfigError(
                f"--own-shuffles and --shuffle-seed {self.shuffle_seed} exclude each other: "
                "leave one out"
            )
        for name in ("half", "devices"):
            if getattr(self, name):
                raise ConfigError(
                    f"--{name} is for one network: leave it out of a sweep, and train its best "
                    "setting with it"
                )
        counts = {name: len(values) or 1 for name, values in tried.items()} | {"seeds": self.seeds}
        networks = math.prod(counts.values())
        if networks > MOST:
            product = " x ".join(f"{count:,} of {name}" for name, count in counts.items())
            raise ConfigError(
                f"{networks:,} networks ({product}) are more than {MOST:,}: ask for fewer"
            )

    def configs(self, images: int) -> list[TrainConfig]:
        """Every network: each of the settings with each of the seeds.

        Args:
          images: in the training set.
        """
        return [
            dataclasses.replace(setting, seed=setting.seed + number)
            for setting in self.settings(images)
            for number in range(self.seeds)
        ]

    def settings(self, images: int) -> list[TrainConfig]:
        """The settings to try, each with the first seed.

        Args:
          images: in the training set.
        """
        shared = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(TrainConfig)
            if one.name not in ("learning_rate", "momentum")
        }
        shared["validation"] = images // 6 if self.validation is None else self.validation
        if self.own_shuffles:
            shared["shuffle_seed"] = None
        inner = len(self.sizes) - 2
        shapes = [(self.sizes[0], *[n] * inner, self.sizes[-1]) for n in self.hidden]
        return [
            TrainConfig(**{**shared, "learning_rate": rate, "momentum": momentum, "sizes": sizes})
            for sizes, rate, momentum in itertools.product(
                shapes or [self.sizes], self.learning_rate, self.momentum or (None,)
            )
        ]


@dataclass(frozen=True)
class Sweep:
    """Train many networks at once: several seeds of each setting, in one program."""

    config: Swept = field(default_factory=Swept)
    recipe: Literal["classic", "best"] | None = None
    """Begin with these settings; docs/accuracy.md tells about them. Other flags change them."""
    data: str | None = None
    """embedded, mnist (see `jaxnn data download`), or a folder of IDX files; else $JAXNN_DATA."""
    out: Path | None = None
    """A new folder for the best model and the ensemble of the best setting's seeds, sweep.json, and
    log.jsonl with a line an epoch; sweeps/1, sweeps/2 ... where not given."""
    no_cache: bool = False
    """Compile anew, and keep nothing compiled for the next time."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Trains, showing the epochs, then a table of the settings; saves the best.

        The test images are read for the networks of the best setting only: nothing is chosen by
        them.
        """
        swept = self.config
        if self.recipe:
            swept = beginning_with(RECIPES[self.recipe], argv)
        elif swept.family != "mlp":
            swept = beginning_with(STARTS[swept.family], argv)
        swept.check()
        check_targets(self.out, self.json)
        if self.out and self.out.exists() and any(self.out.iterdir()):
            raise ConfigError(f"--out {self.out} is there already: name a new folder")
        settings = swept.settings(6)
        networks = len(settings) * swept.seeds
        # In the program all networks are as wide as the widest.
        if swept.family == "mlp":
            choose_threads(networks * max(map(largest_product, settings)))
        from jaxnn import compile_cache
        from jaxnn import data as datasets

        if not self.no_cache:
            compile_cache.enable()
        from jaxnn import ensemble, teacher
        from jaxnn.commands import sweep_results
        from jaxnn.commands.run_folder import filled

        swept = dataclasses.replace(swept, teacher_checksum=teacher.checksum(swept))
        dataset = datasets.load(self.data)
        configs = swept.configs(len(dataset.train_images))
        ensemble.check_all(configs, dataset)
        say(f"{networks} networks: {len(settings)} settings, {swept.seeds} seeds", self.json)
        with filled(self.out, Path("sweeps")) as folder:
            trained = followed(configs, dataset, folder)
            result = sweep_results.measured(trained, dataset)
            sweep_results.save(folder, trained, result, dataset)
        say(sweep_results.table(result), self.json)
        say(f"saved in {folder}", self.json)
        write_json(self.json, {**result, "folder": str(folder)})


def followed(configs: list[TrainConfig], dataset: "Dataset", folder: Path) -> "tuple[Trained, ...]":
    """Trains all networks, showing each epoch and writing it to log.jsonl.

    Raises:
      RunError: Ctrl-C.
    """
    from jaxnn import ensemble
    from jaxnn.commands import sweep_results
    from jaxnn.terminal import TrainingDisplay

    log = folder / "log.jsonl"
    with TrainingDisplay(configs[0].epochs) as display:

        def on_epoch(progress: "Progress") -> None:
            display.epoch(*sweep_results.shown(progress, bool(configs[0].validation)))
            with log.open("a") as file:
                file.write(json_text(sweep_results.logged(progress)) + "\n")

        try:
            return ensemble.fit(configs, dataset, on_epoch=on_epoch)
        except KeyboardInterrupt:
            kept = f"its epochs so far are in {log}" if log.exists() else "no epoch was done"
            raise RunError(f"interrupted: a sweep saves its networks at its end, {kept}") from None


def beginning_with(settings: TrainConfig, argv: list[str]) -> Swept:
    """Settings, changed by the flags that were really given."""
    recipe = dataclasses.asdict(settings)
    default = Swept(
        **{
            **recipe,
            "learning_rate": (recipe["learning_rate"],),
            "momentum": () if recipe["momentum"] is None else (recipe["momentum"],),
            "shuffle_seed": 0,
            "validation": None,
        }
    )
    return reparsed(Sweep, argv, default)
