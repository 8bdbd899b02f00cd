"""`jaxnn sweep`: many networks in one program."""

import dataclasses
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxnn.commands.output import say, write_json
from jaxnn.commands.train import THREADS_PAY_FROM, largest_product
from jaxnn.config import TrainConfig
from jaxnn.errors import ConfigError, RunError
from jaxnn.recipes import RECIPES

if TYPE_CHECKING:
    from jaxnn.ensemble import Progress

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
    """A new folder for the best model, the ensemble of the best setting's seeds, and sweep.json;
    sweeps/1, sweeps/2 ... where not given."""
    no_cache: bool = False
    """Compile anew, and keep nothing compiled for the next time."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Trains, showing the epochs, then a table of the settings; saves the best."""
        swept = self.config
        if self.recipe:
            swept = with_recipe(self.recipe, argv)
        if not 1 <= swept.seeds * max(1, len(swept.learning_rate)) <= MOST:
            raise ConfigError(
                f"seeds is {swept.seeds}: ask for 1 or more, {MOST:,} networks in all"
            )
        networks = len(swept.settings(6)) * swept.seeds
        if networks * largest_product(swept) < THREADS_PAY_FROM:
            os.environ.setdefault("NPROC", "1")
        from jaxnn import compile_cache
        from jaxnn import data as datasets

        if not self.no_cache:
            compile_cache.enable()
        from jaxnn import ensemble
        from jaxnn.commands import sweep_results
        from jaxnn.commands.run_folder import new_folder
        from jaxnn.terminal import TrainingDisplay

        if self.out and self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise ConfigError(f"--out {self.out} is there already: name a new folder")
        dataset = datasets.load(self.data)
        configs = swept.configs(len(dataset.train_images))
        ensemble.check_all(configs, dataset)
        folder = self.out or new_folder(Path("sweeps"))
        history: list[Progress] = []
        say(
            f"{networks} networks: {networks // swept.seeds} settings, {swept.seeds} seeds",
            self.json,
        )
        with TrainingDisplay(swept.epochs) as display:

            def on_epoch(progress: "Progress") -> None:
                display.epoch(*sweep_results.shown(progress))
                history.append(progress)

            try:
                trained = ensemble.fit(configs, dataset, on_epoch=on_epoch)
            except KeyboardInterrupt:
                raise RunError("interrupted: a sweep is saved at its end only") from None
        result = sweep_results.measured(trained, dataset)
        sweep_results.save(folder, trained, result, dataset)
        say(sweep_results.table(result), self.json)
        say(f"saved in {folder}", self.json)
        write_json(self.json, {**result, "folder": str(folder)})


def with_recipe(name: str, argv: list[str]) -> Swept:
    """The recipe's settings, changed by the flags that were really given."""
    recipe = dataclasses.asdict(RECIPES[name])
    default = Swept(
        **{
            **recipe,
            "learning_rate": (recipe["learning_rate"],),
            "momentum": () if recipe["momentum"] is None else (recipe["momentum"],),
            "shuffle_seed": 0,
            "validation": None,
        }
    )
    words = argv[argv.index("sweep") + 1 :]
    parsed: Sweep = tyro.cli(
        Sweep,
        default=Sweep(config=default),
        args=words,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return parsed.config
