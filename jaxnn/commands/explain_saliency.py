"""`jaxnn explain digit` for networks that are no mlp: the scores, and the pixels they hang on."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxnn import terminal
from jaxnn.commands.explain_text import DOWN, UP
from jaxnn.commands.output import write_json
from jaxnn.errors import ConfigError
from jaxnn.explain import saliency
from jaxnn.explain.saliency import Saliency

if TYPE_CHECKING:
    from jaxnn.checkpoint import ModelFile

MORE = {
    "cnn": "More of a cnn: `jaxnn plot filters` and `jaxnn plot features`.",
    "lstm": "More of an lstm: `jaxnn plot gates`.",
}


def explain(
    file: "ModelFile", image: np.ndarray, label: int, plot: Path | None, json: str | None
) -> None:
    """Prints, draws or writes down what the answer to one picture hangs on.

    Args:
      file: the model, of any family.
      image: uint8 [28, 28].
      label: what it shows.
      plot: the figure, where one is asked for.
      json: as in `output.write_json`.

    Raises:
      ConfigError: a label that the network has no output for.
    """
    classes = file.spec.sizes[-1]
    if not 0 <= label < classes:
        raise ConfigError(f"the label is {label}, expected a digit from 0 to {classes - 1}")
    found = saliency.saliency(file.params, file.spec, image[None])
    if plot:
        from jaxnn.plots import explain_saliency, style

        style.save(explain_saliency.one(found, label), plot)
    if json != "-":
        _print(found, label, file.spec.family)
    result = {
        "family": file.spec.family,
        "label": label,
        "answer": int(found.answers[0]),
        "scores": found.scores[0].tolist(),
        "slopes": found.slopes[0].tolist(),
    }
    write_json(json, result)


def _print(found: Saliency, label: int, family: str) -> None:
    """Picture, scores and slopes side by side, in 80 columns."""
    console = Console(highlight=False, soft_wrap=False)
    answer, scores, slopes = int(found.answers[0]), found.scores[0], found.slopes[0]
    verdict = "right" if answer == label else "WRONG"
    console.print(f"[bold]A {label}, read as {answer}: {verdict}.[/]")
    lines = [
        f"{digit}  {score:.3f}  {terminal.bar(score, 8)}" for digit, score in enumerate(scores)
    ]
    beside = Table.grid(padding=(0, 3))
    beside.add_row("the picture", "scores", f"what the {answer} hangs on")
    beside.add_row(
        terminal.digit(found.images[0], color=console.is_terminal), "\n".join(lines), _map(slopes)
    )
    console.print(beside)
    console.print(
        f"▲ and ▼: more ink there makes it surer that this is a {answer}, or less sure,\n"
        f"by more than half of the largest slope, {np.abs(slopes).max():.2g}; ▴ and ▾: than a tenth"
    )
    if family in MORE:
        console.print(MORE[family])


def _map(slopes: np.ndarray) -> Text:
    """Slopes [28, 28] as 12 lines of 24 characters, each the stronger of two; without margins."""
    inner = slopes[2:26, 2:26]
    pairs = np.stack([inner[::2], inner[1::2]])
    stronger = np.take_along_axis(pairs, np.abs(pairs).argmax(axis=0)[None], axis=0)[0]
    text = Text()
    for line in stronger / (np.abs(slopes).max() or 1.0):
        for part in line:
            strong, weak, colour = ("▲", "▴", UP) if part > 0 else ("▼", "▾", DOWN)
            mark = strong if abs(part) > 0.5 else weak if abs(part) > 0.1 else "·"
            text.append(mark, colour if mark != "·" else "")
        text.append("\n")
    return text
