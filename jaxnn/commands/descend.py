"""`jaxnn descend`: gradient descent on a function of two variables."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from jaxnn.commands.output import say, write_json
from jaxnn.errors import ConfigError

if TYPE_CHECKING:
    from jaxnn.surfaces import Path as Descent

LINES = 20  # rows of a table
MOST_STARTS = 5  # as many as there are colours


@dataclass(frozen=True)
class Descend:
    """Walk downhill on a surface f(x, y), named or typed, and see each step."""

    surface: Literal["bowl", "valleys", "saddle", "example", "rosenbrock", "himmelblau"] | None = (
        None
    )
    """A surface with a name; valleys where neither this nor --expression is given."""
    expression: str | None = None
    """Any function of x and y, such as "y*cos(x) + 0.6*x"; with = where it begins with a minus."""
    start: tyro.conf.UseAppendAction[tuple[tuple[float, float], ...]] = ()
    """Where to start, x and y; may be given again for more starts."""
    learning_rate: float | None = None
    """Step size: plain descent moves by this times the negative gradient."""
    steps: int | None = None
    """How many steps at most."""
    optimizer: Literal["sgd", "momentum", "adam", "all"] = "sgd"
    """Plain descent, with momentum, Adam, or one after the other."""
    plot: Path | None = None
    """Draw it all into this file, .png or .svg: contours, 3-D, too large a step, the optimizers."""
    json: str | None = None
    """Write the paths to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Descends, prints each path, and draws."""
        from jaxnn import surfaces
        from jaxnn.expressions import parse

        if self.plot:
            from jaxnn.plots import style

            style.check_path(self.plot)
        if self.surface and self.expression is not None:
            raise ConfigError("--surface and --expression are both given: choose one")
        if len(self.start) > MOST_STARTS:
            raise ConfigError(f"{len(self.start)} starts are given, at most {MOST_STARTS} can be")
        if self.expression is not None:
            surface = surfaces.Surface(self.expression)
        else:
            surface = surfaces.SURFACES[self.surface or "valleys"]
        function = parse(surface.expression)
        starts = self.start or surface.starts
        rate = surface.learning_rate if self.learning_rate is None else self.learning_rate
        steps = surface.steps if self.steps is None else self.steps
        descend = partial(surfaces.descend, function, learning_rate=rate, steps=steps)
        names = surfaces.OPTIMIZERS if self.optimizer == "all" else (self.optimizer,)
        walks = [
            (start, name, descend(start, optimizer=name)) for start in starts for name in names
        ]
        say(f"f(x, y) = {surface.expression}, learning rate {rate:g}", self.json)
        for start, name, path in walks:
            say(f"\n{name} from ({start[0]:g}, {start[1]:g})", self.json)
            say(table(path), self.json)
        if self.plot:
            from jaxnn.plots import surfaces as drawing

            drawn = [descend(start) for start in starts]
            rivals = {name: descend(starts[0], optimizer=name) for name in surfaces.OPTIMIZERS}
            too_large = surfaces.too_large_a_step(
                function, starts[0], learning_rate=rate, steps=steps
            )
            figure = drawing.descent(surface.expression, function, rate, drawn, rivals, too_large)
            style.save(figure, self.plot)
            say(f"\ndrawn: {self.plot}", self.json)
        paths = [{"optimizer": name, "start": start, **plain(path)} for start, name, path in walks]
        write_json(
            self.json,
            {"expression": surface.expression, "learning_rate": rate, "paths": paths},
        )


def table(path: "Descent") -> str:
    """About LINES rows of a path, its first and last among them, and how it ended."""
    last = len(path.values) - 1
    every = max(1, -(-last // (LINES - 1)))  # rounded up
    lines = [f"{'step':>6}{'x':>12}{'y':>12}{'f':>13}{'df/dx':>12}{'df/dy':>12}{'step length':>13}"]
    for step in sorted({*range(0, last + 1, every), last}):
        numbers = (*path.points[step], path.values[step], *path.gradients[step])
        x, y, f, *gradient = (_short(number) for number in numbers)
        length = _short(path.lengths[step]) if step < last else ""
        lines.append(
            f"{step:6d}{x:>12}{y:>12}{f:>13}{gradient[0]:>12}{gradient[1]:>12}{length:>13}"
        )
    outcome = "still moving" if path.outcome == "moving" else path.outcome
    lines.append(f"{outcome} after {last:,} steps: {path.note}")
    return "\n".join(lines)


def plain(path: "Descent") -> dict[str, Any]:
    """A path as values that JSON knows."""
    return {
        "outcome": path.outcome,
        "note": path.note,
        "points": path.points.tolist(),
        "values": path.values.tolist(),
        "gradients": path.gradients.tolist(),
    }


def _short(number: float) -> str:
    """Four digits after the point where they say something, else a power of ten."""
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e5 else f"{number:.3e}"
