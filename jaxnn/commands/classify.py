"""`jaxnn classify`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from jaxnn.commands.output import say, write_json
from jaxnn.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 64 * 2**20  # of a picture file


class Answers(NamedTuple):
    """What N pictures were read as."""

    scores: "np.ndarray"  # float32 [N, n_out]
    members: int = 1  # of the model that answered; a server does not tell, and counts as one
    agreement: "np.ndarray | None" = None  # float32 [N], of an ensemble: see `metrics.agreement`


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
        if self.server and self.model:
            raise ConfigError("--server and --model exclude each other: the server has its model")
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
            answers = self._answers(pictures)
            for index, (name, scores) in enumerate(zip(names, answers.scores, strict=True)):
                label = int(scores.argmax())
                result: dict[str, Any] = {"image": name, "label": label, "scores": scores.tolist()}
                text = f"score {scores[label]:.3f}"
                if answers.agreement is not None:
                    result["agreement"] = share = float(answers.agreement[index])
                    agreed = round(share * answers.members)
                    text += f", {agreed} of {answers.members} members agree"
                results.append(result)
                say(f"{name}: {label}  ({text})", self.json)
        write_json(self.json, {"results": results, "unread": unread})
        for sentence in unread[:-1]:
            print(f"jaxnn: {sentence}", file=sys.stderr)
        if unread:
            raise DataError(unread[-1])

    def _answers(self, pictures: "list[np.ndarray]") -> Answers:
        """For N prepared pictures uint8 [28, 28]."""
        import numpy as np

        if self.server:
            from service.client import DigitClient

            with DigitClient(self.server) as client:
                return Answers(client.classify(np.stack(pictures)).scores)
        from jaxnn import metrics, models
        from jaxnn.commands import inputs

        file = inputs.load_model(self.model)
        model, images = models.build(file.spec), np.stack(pictures)
        scores = metrics.scores(file.params, images, model=model)
        if file.spec.members == 1:
            return Answers(scores)
        agreement = metrics.agreement(file.params, images, model=model)
        return Answers(scores, file.spec.members, agreement)


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe or device might never end
            raise DataError(f"{path} could not be read: it is no file")
        with path.open("rb") as file:
            blob = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror}") from error
    if len(blob) > MAX_BYTES:
        raise DataError(f"{path} has more than {MAX_BYTES:,} bytes: give a smaller picture")
    return blob
