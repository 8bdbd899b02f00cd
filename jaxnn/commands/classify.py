"""`jaxnn classify`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxnn.commands.output import say, write_json
from jaxnn.errors import DataError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Classify:
    """Read the digit in each picture, here or on a server."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Picture files: PNG, JPEG, WebP, BMP, TIFF or GIF."""
    model: Path | None = None
    """A model file; the one that ships with jaxnn where not given."""
    server: str | None = None
    """HOST:PORT of a running `jaxnn serve`, to be asked instead of a model here."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Prints a line for each picture; one that cannot be read does not stop the others."""
        if not self.images:
            raise DataError(
                "no picture given: name one or more files, as in `jaxnn classify 7.png`"
            )
        from jaxnn.data import preprocess

        pictures, names = [], []
        unread = []
        for path in self.images:
            try:
                image = preprocess.prepare(preprocess.decode(_bytes(path), str(path)))
            except DataError as error:
                unread.append(str(error))
                continue
            pictures.append(image)
            names.append(str(path))
        results = []
        if pictures:
            for name, scores in zip(names, self._scores(pictures), strict=True):
                label = int(scores.argmax())
                results.append({"image": name, "label": label, "scores": scores.tolist()})
                say(f"{name}: {label}  (score {scores[label]:.3f})", self.json)
        write_json(self.json, {"results": results, "unread": unread})
        for sentence in unread[:-1]:
            print(f"jaxnn: {sentence}", file=sys.stderr)
        if unread:
            raise DataError(unread[-1])

    def _scores(self, pictures: "list[np.ndarray]") -> "np.ndarray":
        """float32 [N, n_out] for N prepared pictures uint8 [28, 28]."""
        import numpy as np

        if self.server:
            from service.client import DigitClient

            with DigitClient(self.server) as client:
                return client.classify(np.stack(pictures)).scores
        from jaxnn import checkpoint, metrics, models

        file = checkpoint.load(self.model or checkpoint.SHIPPED)
        return metrics.scores(file.params, np.stack(pictures), model=models.build(file.spec))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror}") from error
