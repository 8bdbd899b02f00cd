"""What a person sees in a terminal: training as it goes, digits, scores.

All of it goes to a rich console, which leaves out colours and live parts where the output is
not a terminal.
"""

import sys
from collections.abc import Sequence
from types import TracebackType

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

LINES = 25
SHADES = " .:-=+*#%@"


class TrainingDisplay:
    """Lines of figures, and under them, in a terminal, a bar with the time left.

    `epochs` are to be done in all, `first` of them done before (a resumed run). A long run shows
    about LINES of its epochs; its log has all of them.
    """

    def __init__(self, epochs: int, first: int = 0, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.progress = Progress(
            TextColumn("epoch {task.completed:.0f} of {task.total:.0f}"),
            BarColumn(),
            TextColumn("time left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.progress.add_task("epochs", total=epochs, completed=first)
        self.every = max(1, (epochs - first) // LINES)
        self.epochs = epochs
        self.shown = 0

    def __enter__(self) -> "TrainingDisplay":
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def epoch(
        self, epoch: int, cost: float, held_out_cost: float, accuracy: float, rate: float
    ) -> None:
        """Shows one epoch; `accuracy` is 0 to 1, `rate` in images a second."""
        if self.shown == 0:
            self.console.print(
                "epoch      cost  held-out cost  held-out accuracy   images/s  time left"
            )
        self.progress.update(self.task, completed=epoch)
        if self.shown and epoch % self.every and epoch != self.epochs:
            return
        left = self.progress.tasks[self.task].time_remaining
        self.console.print(
            f"{epoch:5d}  {cost:8.4f}  {held_out_cost:13.4f}  {accuracy:17.2%}  "
            # The first epoch compiles too: its speed would say nothing.
            f"{'compiling' if self.shown == 0 else f'{rate:,.0f}':>9}  "
            f"{'' if left is None else f'{left:.0f} s':>9}"
        )
        self.shown += 1


def digit(image: np.ndarray, color: bool = True) -> Text:
    """One picture, uint8 [28, 28], as 12 lines of 24 characters: its margin is left out.

    In colour each character is an upper half block that shows two pixels; without, its shade is
    the mean of the two.
    """
    image = image[2:26, 2:26]
    lines = []
    for top, bottom in zip(image[::2], image[1::2], strict=True):
        if color:
            line = Text()
            for upper, lower in zip(top.tolist(), bottom.tolist(), strict=True):
                line.append("▀", f"rgb({upper},{upper},{upper}) on rgb({lower},{lower},{lower})")
        else:
            mean = (top.astype(int) + bottom) // 2
            line = Text("".join(SHADES[m * len(SHADES) // 256] for m in mean))
        lines.append(line)
    return Text("\n").join(lines)


def bar(score: float, width: int = 16) -> str:
    """A bar for a score in [0, 1]."""
    return "█" * round(score * width)


def score_lines(scores: np.ndarray, truth: int | None = None) -> Text:
    """Ten scores [10] in [0, 1], a line each: the largest in bold, green or red where known."""
    best = int(np.argmax(scores))
    lines = []
    for label, score in enumerate(scores.tolist()):
        style = ""
        if label == best:
            style = "bold" if truth is None else "bold green" if best == truth else "bold red"
        lines.append(Text(f"{label}  {score:4.2f} {bar(score)}", style))
    return Text("\n").join(lines)


def gallery(
    console: Console,
    images: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    labels: Sequence[int],
    columns: int = 3,
) -> RenderableType:
    """Digits side by side, each with its label, the answer and the ten scores under it."""
    rows = []
    for start in range(0, len(images), columns):
        grid = Table.grid(padding=(0, 2))
        cells = []
        for image, ten, label in list(zip(images, scores, labels, strict=True))[
            start : start + columns
        ]:
            answer = int(np.argmax(ten))
            verdict = "right" if answer == label else "WRONG"
            cells.append(
                Group(
                    digit(image, color=console.is_terminal),
                    Text(f"{label}, read as {answer}: {verdict}", "bold"),
                    score_lines(ten, label),
                    Text(""),
                )
            )
        grid.add_row(*cells)
        rows.append(grid)
    return Group(*rows)
