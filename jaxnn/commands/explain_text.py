"""What `jaxnn explain` prints, in 80 columns."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from jaxnn import terminal
from jaxnn.explain.batch import Agreement, Disagreement, Proof
from jaxnn.explain.chain import Chain, Stop
from jaxnn.explain.digit import DigitExplanation, LayerNudges

SHOWN = 16  # neurons of a layer, and as many before it
BAR = 8  # characters of the longest bar
DRAWN = ("wish", "nudges to weights")  # columns of bars and maps
UP, DOWN = "dodger_blue1", "dark_orange3"  # told apart with any colour vision, and by their signs


def chain(found: Chain, travels: Sequence[Sequence[Stop]]) -> None:
    """The forward pass, the derivatives, and nudges on their way."""
    console = _console()
    count = len(found.weights)
    console.print(
        f"[bold]One neuron a layer[/]: z = w a + b with the a before, a = sigmoid(z), "
        f"C = (a{count} - y)²\nx = {found.x:g}, y = {found.y:g}\n"
    )
    forward = _table("layer", "w", "b", "z", "a")
    for layer, row in enumerate(
        zip(found.weights, found.biases, found.z, found.a[1:], strict=True)
    ):
        forward.add_row(str(layer + 1), *(f"{value:.4f}" for value in row))
    console.print(forward, f"cost C = (a{count} - y)² = {found.cost:.6f}\n")

    console.print("[bold]Every derivative is a product of three[/], the last layer first:")
    table = _table("", "dz/d()", "da/dz", "dC/da", "product", "by moving it")
    for derivative in found.derivatives:
        numbers = [value for _, value in derivative.factors]
        table.add_row(
            f"dC/d{derivative.name}",
            *(f"{value:.4f}" for value in numbers),
            f"{derivative.product:.8f}",
            f"{derivative.measured:.8f}",
        )
    console.print(table)
    console.print(
        f"dC/da{count} is 2 (a{count} - y); any dC/da before it is a product of the layer after.\n"
        "By moving it: the cost again, with the number a little higher and lower.\n"
    )
    for stops in travels:
        nudge = stops[0].after - stops[0].before
        console.print(f"[bold]{stops[0].name} moves by {nudge:+g}[/]")
        table = _table("", "before", "after", "moves by", "times", "", "slopes say")
        for stop in stops:
            table.add_row(
                stop.name,
                f"{stop.before:.4f}",
                f"{stop.after:.4f}",
                f"{stop.after - stop.before:+.4f}",
                stop.factor,
                f"{stop.slope:.4f}" if stop.factor else "",
                f"{stop.predicted - stop.before:+.4f}",
            )
        console.print(table, "")


def digit(found: DigitExplanation, trained_by: str) -> None:
    """The picture beside its cost, then what it wants of each layer, the last first."""
    console = _console()
    verdict = "right" if found.answer == found.label else "WRONG"
    console.print(
        f"[bold]A {found.label}, read as {found.answer}: {verdict}.[/] "
        f"Its cost is {found.cost:.6g}, the sum of the squares."
    )
    last = found.layers[-1]
    terms = _table("output", "a", "y", "(a - y)²", "wish, -dC/da")
    for j, (a, y, term) in enumerate(zip(last.activations, found.target, found.terms, strict=True)):
        style = "bold" if j == found.label else ""
        wish = _signed(last.wishes[j], last.wishes)
        terms.add_row(
            str(j), f"{a:.3f}", f"{y:.0f}", _number(term, found.terms, ""), wish, style=style
        )
    beside = Table.grid(padding=(0, 2))
    beside.add_row(terminal.digit(found.image, color=console.is_terminal), terms)
    console.print(beside)
    if trained_by != "quadratic":
        console.print(f"(The network was trained by {trained_by}; explained is the squared cost.)")
    for index in reversed(range(len(found.layers))):
        console.print()
        before = found.layers[index - 1].activations if index else found.image.reshape(-1) / 255
        _layer(console, index + 1, found.layers[index], before)
    console.print(
        "\nA nudge is a negative derivative: the way down for this one example. Weights are"
        "\nnudged in proportion to the activations before them, these in proportion to the"
        "\nweights."
    )


def batch(shown: Disagreement, proof: Proof, agreements: Sequence[Agreement], network: str) -> None:
    """Nudges side by side, the proof of their mean, and angle and time by batch size."""
    console = _console()
    k = len(shown.labels)
    console.print(f"[bold]What single digits want of {network}[/], and their means:")
    table = _table(
        "nudge to", *(f"a {label}" for label in shown.labels), f"mean of {k}",
        f"mean of {proof.examples:,}",
    )  # fmt: skip
    half = len(shown.names) // 2
    for row, name in enumerate(shown.names):
        singles = [_coloured(value, f"{value:+.4f}") for value in shown.nudges[row]]
        means = [
            _coloured(value[row], f"{value[row]:+.4f}") for value in (shown.average, shown.everyone)
        ]
        if row == half:
            table.add_row("")
        table.add_row(name, *singles, *means)
    console.print(table)
    actives = ", ".join(f"{a:.2f}" for a in shown.activations)
    console.print(
        f"b\\[j] is the bias of output j, w\\[j,{shown.neuron}] its weight from neuron "
        f"{shown.neuron} before it, whose\n"
        f"activations are {actives}: the weight is nudged in proportion.\n"
    )
    console.print(
        f"[bold]The mean of the nudges is the nudge of the mean cost:[/] over {proof.examples:,} "
        f"examples,\nmade one by one, it differs from the negative gradient in none of "
        f"{proof.parameters:,}\nparameters by more than {proof.difference:.1e}; "
        f"the largest nudge is {proof.largest:.1e}.\n"
    )
    console.print(
        f"[bold]How few examples suffice?[/] Medians of {len(agreements[0].cosines)} draws:"
    )
    table = _table("examples", "cosine", "angle", "time", "in the time of one of all")
    for one in agreements:
        table.add_row(
            f"{one.size:,}",
            f"{np.median(one.cosines):.3f}",
            f"{np.median(one.angles):.0f}°",
            f"{1000 * one.seconds:.2f} ms",
            f"{agreements[-1].seconds / one.seconds:,.0f}",
        )
    console.print(table)
    console.print(
        "Cosine and angle to the gradient over all examples. A small batch points roughly\n"
        "the right way in a fraction of the time: many rough steps beat one exact one."
    )


def _layer(console: Console, number: int, layer: LayerNudges, before: np.ndarray) -> None:
    """One layer: a line a neuron, with its weights' nudges as a map where they fit."""
    count, fits = len(layer.activations), len(before) <= SHOWN
    rows = range(count)
    note = ""
    if count > SHOWN:
        rows = np.sort(np.argsort(-np.abs(layer.wishes), kind="stable")[:SHOWN]).tolist()
        note = f", the {SHOWN} of {count} with the strongest wishes"
    console.print(f"[bold]Layer {number}[/]{note}")
    weights = "nudges to weights" if fits else "strongest weight nudge"
    table = _table("", "a", "wish, -dC/da", "bias nudge", weights)
    if fits:
        table.add_row("", "", "", "a before:", _shades(before))
    for j in rows:
        strongest = layer.weights[j][np.argmax(np.abs(layer.weights[j]))]
        table.add_row(
            str(j),
            f"{layer.activations[j]:.3f}",
            _signed(layer.wishes[j], layer.wishes),
            _coloured(layer.biases[j], _number(layer.biases[j], layer.biases)),
            _map(layer.weights[j], layer.weights)
            if fits
            else _coloured(strongest, _number(strongest, layer.weights)),
        )
    console.print(table)
    if fits:
        largest = _number(np.abs(layer.weights).max(), layer.weights)
        console.print(f"▲ and ▼: more than half of the largest, {largest}; ▴ and ▾: than a tenth")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in heads:
        # What is drawn keeps its left edge, numbers their right one.
        justify: JustifyMethod = "left" if head.startswith(DRAWN) else "right"
        table.add_column(head, justify=justify, no_wrap=True)
    return table


def _coloured(value: float, text: str) -> Text:
    return Text(text, _colour(value))


def _colour(value: float) -> str:
    return UP if value > 0 else DOWN if value < 0 else ""


def _number(value: float, among: np.ndarray, sign: str = "+") -> str:
    """With an exponent where all of them are small, with a plus where asked for."""
    value += 0.0  # makes a -0 a 0
    return f"{value:{sign}.4f}" if np.abs(among).max() >= 0.01 else f"{value:{sign}.1e}"


def _signed(value: float, among: np.ndarray) -> Text:
    """Up or down, how much, and a bar that shows it beside the others."""
    bar = terminal.bar(abs(value) / (np.abs(among).max() or 1.0), BAR)
    arrow = "▲" if value > 0 else "▼" if value < 0 else " "
    return _coloured(value, f"{arrow} {_number(value, among)} {bar:{BAR}}")


def _map(values: np.ndarray, among: np.ndarray) -> Text:
    """Two characters for each value: which way, and how much beside the largest of all."""
    text = Text()
    for part in values / (np.abs(among).max() or 1.0):
        strong, weak = "▲▴" if part > 0 else "▼▾"
        mark = strong if abs(part) > 0.5 else weak if abs(part) > 0.1 else "·"
        text.append(f"{mark} ", _colour(part))
    return text


def _shades(activations: np.ndarray) -> str:
    """Two characters for each activation, darker where it is larger."""
    steps = len(terminal.SHADES)
    return "".join(2 * terminal.SHADES[int(np.clip(a * steps, 0, steps - 1))] for a in activations)
