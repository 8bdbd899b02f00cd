"""`jaxnn listen`: the digits spoken in a recording."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxnn.commands import hearing
from jaxnn.commands.output import say, write_json
from jaxnn.errors import DataError

if TYPE_CHECKING:
    from jaxnn.answers import Answers


@dataclass(frozen=True)
class Listen:
    """Cut a recording at its silences and read out the digits that are spoken in it."""

    file: Annotated[Path, tyro.conf.Positional]
    """A WAV file of up to 10 minutes, of any rate, channels and depth."""
    model: Path | None = None
    """The model file of a network for spoken digits; the one that ships with jaxnn where not
    given."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Prints the digits, then each with its times and how sure the network is of it."""
        import numpy as np

        from jaxnn import answers
        from jaxnn.data import silences, speech, wav
        from jaxnn.data.picture_files import read_file, shown

        model = hearing.load_model(self.model)
        samples = wav.decode(read_file(self.file), shown(self.file))
        times = silences.words(samples)
        if not times:
            raise DataError(
                f"{shown(self.file)} holds no words: nothing in it stands out from its silence"
            )
        spans = [samples[round(start * wav.RATE) : round(end * wav.RATE)] for start, end in times]
        found = answers.answer(model, np.stack([speech.prepare(span) for span in spans]))
        result = _result(self.file, times, found)
        say("\n".join([f"{shown(self.file)}: {result['text']}", *_lines(result)]), self.json)
        write_json(self.json, result)


def _result(path: Path, times: list[tuple[float, float]], found: "Answers") -> dict[str, Any]:
    """What was heard, as plain values."""
    words = [
        {
            "digit": int(label),
            "confidence": float(confidence),
            "rejected": bool(rejected),
            "start_s": start,
            "end_s": end,
        }
        for (start, end), label, confidence, rejected in zip(
            times, found.labels, found.confidence, found.rejected, strict=True
        )
    ]
    text = " ".join("?" if word["rejected"] else str(word["digit"]) for word in words)
    return {"file": str(path), "text": text, "words": words}


def _lines(result: dict[str, Any]) -> list[str]:
    """A line a word. Confidence is rounded down: 100 % is for what is certain."""
    return [
        f"  {word['start_s']:6.2f} to {word['end_s']:6.2f} s  {word['digit']}"
        f"{'?' if word['rejected'] else ' '} {int(100 * word['confidence']):3d} %"
        for word in result["words"]
    ]
