"""`jaxnn gradcheck`."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from jaxnn.commands.output import write_json
from jaxnn.errors import RunError

if TYPE_CHECKING:
    from rich.table import Table

    from jaxnn.differences import Difference
    from jaxnn.gradcheck import Result
    from jaxnn.models import Spec


@dataclass(frozen=True)
class Gradcheck:
    """Prove that backprop, jax.grad and finite differences agree, here, on this machine."""

    family: Literal["mlp"] = "mlp"
    """Family of networks."""
    sizes: tuple[int, ...] = (5, 3, 7, 2)
    """Neurons in each layer, the inputs first."""
    activation: Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu"] | None = None
    """Activation of the hidden layers; all of them where not given."""
    output: Literal["sigmoid", "softmax"] | None = None
    """Activation of the last layer; both where not given."""
    cost: Literal["quadratic", "cross_entropy", "competing"] | None = None
    """Cost of one example; all of them where not given."""
    dtype: Literal["float32", "float64"] | None = None
    """Both where not given; finite differences need float64."""
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

        specs = self.specs()
        networks = [models.build(spec) for spec in specs]

        def in_dtype(dtype: str) -> "list[Result]":
            return gradcheck.check_all(networks, dtype, self.examples, self.seed, self.l2)

        dtypes = [self.dtype] if self.dtype else list(gradcheck.BOUNDS)
        with (
            Console(stderr=True).status(f"compiling {len(specs)} networks"),
            ThreadPoolExecutor() as pool,  # two programs compile in the time of one
        ):
            by_dtype = list(pool.map(in_dtype, dtypes))
        results = [result for both in zip(*by_dtype, strict=True) for result in both]
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

    def specs(self) -> "list[Spec]":
        """The combinations that were asked for."""
        from jaxnn.activations import ACTIVATIONS
        from jaxnn.costs import OBJECTIVES
        from jaxnn.models import Spec

        return [
            Spec(self.family, self.sizes, activation, output, cost)
            for activation in ACTIVATIONS
            for output, cost in OBJECTIVES
            if self.activation in (None, activation)
            and self.output in (None, output)
            and self.cost in (None, cost)
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
    for title in ("hidden", "output, cost", "dtype"):
        shown.add_column(title, no_wrap=True)
    for title in ("one", "each", "batch", "finite"):
        shown.add_column(title, justify="right", no_wrap=True)
    for result in results:
        finite = result.against("finite differences")
        shown.add_row(
            result.spec.activation,
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
    moved = max(result.moved for result in results)
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
    if moved:
        lines.append(f"Finite differences moved {moved:,} of {closest.parameters:,} parameters.")
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
    where = {
        "one": "for one example",
        "each": f"for example {worst.example} under vmap",
        "batch": "for the batch",
    }[worst.mode]
    return (
        f"{spec.activation} with {spec.output} and {spec.cost} in {result.dtype} {where}, "
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
