"""`jaxnn gradcheck`."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from jaxnn.commands.output import write_json
from jaxnn.errors import ConfigError, RunError

if TYPE_CHECKING:
    from rich.table import Table

    from jaxnn.differences import Difference
    from jaxnn.gradcheck import Result
    from jaxnn.models import Model, Spec


BESIDE_MLP = ("tanh", ("softmax", "cross_entropy"))  # smooth, and quick to compile


@dataclass(frozen=True)
class Gradcheck:
    """Prove that backprop, jax.grad and finite differences agree, here, on this machine."""

    family: Literal["mlp", "cnn", "lstm", "all"] = "all"
    """Family of networks."""
    architecture: str | None = None
    """Of a cnn or lstm; small ones with all of the family's formulas where not given."""
    sizes: tuple[int, ...] | None = None
    """Neurons in each layer, the inputs first; few where not given."""
    activation: Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu"] | None = None
    """Activation of the hidden layers; all of them where not given."""
    output: Literal["sigmoid", "softmax"] | None = None
    """Activation of the last layer; both where not given."""
    cost: Literal["quadratic", "cross_entropy", "competing"] | None = None
    """Cost of one example; all of them where not given; of a cnn or lstm one combination
    where none of the three is given."""
    dtype: Literal["float32", "float64"] | None = None
    """Both where not given, of a cnn or lstm float64 alone; finite differences need float64."""
    l2: float = 0.1
    """Weight decay in the cost of the batch."""
    examples: int = 7
    """Examples in the batch."""
    seed: int = 14
    """Decides parameters and examples."""
    no_cache: bool = False
    """Compile anew, and keep nothing compiled for the next time."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Prints a table of the largest relative differences.

        Raises:
          RunError: a bound is broken.
        """
        from rich.console import Console

        from jaxnn import compile_cache

        if not self.no_cache:
            compile_cache.enable()
        from jaxnn import gradcheck, models

        kinds = self.kinds()
        networks = [[models.build(spec) for spec in specs] for specs in kinds]
        work = [
            (of_kind, dtype)
            for of_kind in networks
            for dtype in gradcheck.BOUNDS
            if dtype == (self.dtype or "float64")
            or (self.dtype is None and of_kind[0].spec.family == "mlp")
        ]

        def check(some: "tuple[list[Model], str]") -> "list[Result]":
            return gradcheck.check_all(*some, self.examples, self.seed, self.l2)

        with (
            Console(stderr=True).status(f"compiling {sum(map(len, kinds))} networks"),
            ThreadPoolExecutor() as pool,  # two programs compile in the time of one
        ):
            checked = list(pool.map(check, work))
        order = [spec for specs in kinds for spec in specs]
        results = [result for of_program in checked for result in of_program]
        results.sort(key=lambda result: order.index(result.spec))  # dtypes side by side
        broken = [result for result in results if not result.passed]
        if self.json != "-":
            Console(highlight=False).print(table(results), summary(results, self.examples))
        write_json(
            self.json,
            {
                "passed": not broken,
                "examples": self.examples,
                "seed": self.seed,
                "l2": self.l2,
                "results": [as_json(result) for result in results],
            },
        )
        if broken:
            worst = max(broken, key=lambda result: result.worst.excess)
            raise RunError(
                f"{len(broken)} of {len(results)} combinations break a bound, "
                f"{in_words(worst)}: look for the formula that this parameter depends on"
            )

    def kinds(self) -> "list[list[Spec]]":
        """The combinations that were asked for: a list for each architecture and its sizes.

        Raises:
          ConfigError: sizes or an architecture for all families at once.
        """
        from jaxnn.gradcheck import SMALL

        if self.family == "all" and (self.sizes or self.architecture):
            raise ConfigError(
                "--sizes and --architecture are of one family: name it by --family mlp, cnn or lstm"
            )
        kinds = []
        for family in SMALL if self.family == "all" else (self.family,):
            small = dict(SMALL[family])
            names = small if self.architecture is None else [self.architecture]
            for name in names:
                sizes = self.sizes or small.get(name, next(iter(small.values())))
                kinds.append(self.specs(family, name, sizes))
        return kinds

    def specs(self, family: str, architecture: str, sizes: tuple[int, ...]) -> "list[Spec]":
        """The combinations of activation, output and cost for one of them.

        Of an mlp all. Others take these formulas from the same place and are long to compile: where
        no choice is named, BESIDE_MLP.
        """
        from jaxnn.activations import ACTIVATIONS
        from jaxnn.costs import OBJECTIVES
        from jaxnn.models import Spec

        chosen = [
            (activation, objective)
            for activation in ACTIVATIONS
            for objective in OBJECTIVES
            if self.activation in (None, activation)
            and self.output in (None, objective[0])
            and self.cost in (None, objective[1])
        ]
        if family != "mlp" and not (self.activation or self.output or self.cost):
            chosen = [BESIDE_MLP]
        return [
            Spec(family, sizes, activation, *objective, architecture=architecture)
            for activation, objective in chosen
        ]


def table(results: "list[Result]") -> "Table":
    """A line a network and dtype; what breaks its bound is red and marked."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def number(difference: "Difference") -> Text:
        text = f"{difference.relative:.0e}"
        return Text(text) if difference.passed else Text(f"{text} !", "bold red")

    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("network, hidden", "output, cost", "dtype"):
        shown.add_column(title, no_wrap=True)
    for title in ("one", "each", "batch", "finite"):
        shown.add_column(title, justify="right", no_wrap=True)
    for result in results:
        finite = result.against("finite differences")
        shown.add_row(
            " ".join(
                filter(None, (result.spec.family, result.spec.architecture, result.spec.activation))
            ),
            f"{result.spec.output}, {result.spec.cost}",
            result.dtype,
            *(number(difference) for difference in result.against("jax.grad")),
            number(max(finite, key=lambda difference: difference.excess)) if finite else "",
        )
    return shown


def summary(results: "list[Result]", examples: int) -> str:
    """What the table's columns are, what was checked, and where it comes closest to a bound."""
    from jaxnn import gradcheck

    closest = max(results, key=lambda result: result.worst.excess)
    most = max(results, key=lambda result: (result.moved, result.parameters))
    kinks = sum(result.kinks for result in results)
    silent = sum(result.silent > 0 for result in results)
    lines = [
        "Largest relative difference between explicit backprop and jax.grad: for one example, "
        f"for each of {examples} under vmap, and for the batch; finite: the largest of these three "
        "between backprop and central finite differences, in float64. Relative to the largest "
        "slope in the same array, or to a floor where that is less: "
        f"{gradcheck.BOUNDS['float32'].floor:g} in float32, "
        f"{gradcheck.BOUNDS['float64'].floor:g} in float64."
    ]
    if most.moved:
        lines.append(
            f"Finite differences moved {most.moved:,} of {most.parameters:,} parameters"
            f"{' in the largest network' if len({r.parameters for r in results}) > 1 else ''}."
        )
    if kinks:
        lines.append(f"{kinks:,} slopes were left out: the cost has a kink within the step.")
    if silent:
        lines.append(
            f"In {silent} lines an array of parameters has no gradient at all, and its agreement "
            "proves little: try another --seed."
        )
    verdict = "All agree; closest to its bound is" if closest.passed else "Broken most is"
    return "\n".join([*lines, f"{verdict} {in_words(closest)}."])


def in_words(result: "Result") -> str:
    """The place where a result is at its worst, for a sentence."""
    worst = result.worst
    spec = result.spec
    network = f"{spec.family} {spec.architecture}, " if spec.architecture else ""
    where = {
        "one": "for one example",
        "each": f"for example {worst.example} under vmap",
        "batch": "for the batch",
    }[worst.mode]
    return (
        f"{network}{spec.activation} with {spec.output} and {spec.cost} in {result.dtype} {where}, "
        f"at {worst.place}: backprop {worst.explicit:.9g}, {worst.reference} "
        f"{worst.expected:.9g}, a relative difference of {worst.relative:.1e} where "
        f"{worst.bound:.0e} is allowed"
    )


def as_json(result: "Result") -> dict[str, Any]:
    """A result as plain values; a difference that is not finite is null."""
    return {
        **result.spec._asdict(),
        "dtype": result.dtype,
        "passed": result.passed,
        "parameters": result.parameters,
        "moved": result.moved,
        "kinks": result.kinks,
        "silent": result.silent,
        "differences": [
            {
                name: None if isinstance(value, float) and not isfinite(value) else value
                for name, value in (*difference._asdict().items(), ("place", difference.place))
            }
            for difference in result.differences
        ],
    }
