"""`jaxnn classify`."""

import math
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from jaxnn.commands.output import say, write_json
from jaxnn.errors import ConfigError, DataError
from service.calling.connection import PLAIN, Connection

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

    from service.calling.calls import Asking


class Seen(NamedTuple):
    """A picture, and what the network sees of it."""

    name: str
    digit: "np.ndarray"  # uint8 [28, 28]
    picture: "Picture | None"  # in mode L or RGB, where it is to be drawn


class Verdict(NamedTuple):
    """What one picture was read as."""

    label: int
    scores: "np.ndarray"  # float32 [C]
    confidence: float  # that the label is right, if the picture shows a digit
    rejected: bool  # it does not look like one
    novelty: float | None = None  # None where the model knows none, and from a server
    limit: float | None = None  # the largest novelty that is accepted
    agreement: float | None = None  # of an ensemble: see `metrics.agreement`
    members: int = 1  # of the model; a server does not tell, and counts as one

    def text(self) -> str:
        """For people."""
        if self.rejected:
            return f"not sure: it does not look like a digit (read as {self.label})"
        text = f"score {self.scores[self.label]:.3f}"
        if 0 <= self.confidence <= 1:  # a server of old gives NaN
            # Rounded down: 100% is for what is certain.
            text = f"confidence {math.floor(100 * self.confidence)}%"
        if self.agreement is not None:
            text += f", {round(self.agreement * self.members)} of {self.members} members agree"
        return f"{self.label}  ({text})"

    def reason(self) -> str:
        """Why it was accepted or rejected, in numbers; empty where they are not known."""
        if self.novelty is None or self.limit is None:
            return ""
        side = "above" if self.rejected else "within"
        return f"novelty {self.novelty:.2f}, {side} the limit of {self.limit:.2f}"


@dataclass(frozen=True)
class Classify:
    """Read the digit in each picture, here or on a server."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Picture files: PNG, JPEG, WebP, BMP, TIFF or GIF."""
    model: Path | None = None
    """A model file; the one that ships with jaxnn where not given."""
    server: str | None = None
    """HOST:PORT of a running `jaxnn serve`, or IP:PORT,IP:PORT of several, to be asked instead."""
    server_model: str | None = None
    """Which of the server's models to ask, NAME or NAME:VERSION; its default where not given."""
    connection: Connection = field(default_factory=Connection)
    raw: bool = False
    """Leave the pictures alone: they are 28 x 28 pixels of grey already, bright ink on black."""
    plot: Annotated[Path | None, tyro.conf.arg(aliases=["--explain"])] = None
    """Draw the one picture, what the network saw, and its scores, as this .png or .svg file."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Prints a line for each picture; one that cannot be read does not stop the others."""
        if not self.images:
            raise DataError(
                "no picture given: name one or more files, as in `jaxnn classify 7.png`"
            )
        if self.server and self.model:
            raise ConfigError(
                "--server and --model exclude each other: --model is a file on this machine, "
                "--server-model names a model of the server"
            )
        if (self.connection != PLAIN or self.server_model is not None) and not self.server:
            raise ConfigError(
                "--server-model, --token and the --tls flags are for --server: name a server"
            )
        if self.server_model is not None and not re.fullmatch("[^:]+(:[^:]+)?", self.server_model):
            raise ConfigError(
                f"--server-model is {self.server_model!r}, expected NAME or NAME:VERSION"
            )
        from jaxnn.data.picture_files import shown

        if self.plot:
            from jaxnn.commands import inputs
            from jaxnn.plots import picture, style

            if len(self.images) > 1:
                raise ConfigError(
                    f"--plot draws one picture, but {len(self.images)} are given: "
                    "classify one at a time"
                )
            style.check_path(self.plot)
            inputs.check_plot(self.plot, self.images[0])
        pictures, unread = [], []
        for path in self.images:
            try:
                pictures.append(_seen(path, self.raw, keep=self.plot is not None))
            except DataError as error:
                unread.append(str(error))
        verdicts = self._verdicts([seen.digit for seen in pictures]) if pictures else []
        results = []
        for seen, verdict in zip(pictures, verdicts, strict=True):
            results.append(_result(seen.name, verdict))
            say(f"{shown(seen.name)}: {verdict.text()}", self.json)
        write_json(self.json, {"results": results, "unread": unread})
        for seen, verdict in zip(pictures, verdicts, strict=True):
            if self.plot and seen.picture:
                figure = picture.explained(
                    seen.picture,
                    seen.digit,
                    verdict.scores,
                    verdict.text(),
                    verdict.reason(),
                    verdict.rejected,
                )
                style.save(figure, self.plot)
        for sentence in unread[:-1]:
            print(f"jaxnn: {sentence}", file=sys.stderr)
        if unread:
            raise DataError(unread[-1])

    def _verdicts(self, digits: "list[np.ndarray]") -> list[Verdict]:
        """For N digits uint8 [28, 28], N at least 1."""
        import numpy as np

        images = np.stack(digits)
        if self.server:
            name, _, version = (self.server_model or "").partition(":")
            connection = self.connection.with_environment()
            return _asked(self.server, connection, images, {"model": name, "version": version})
        return _answered(self.model, images)


def _asked(
    server: str, connection: Connection, images: "np.ndarray", asking: "Asking"
) -> list[Verdict]:
    """What a server says."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines say less than our sentences
    from service.client import DigitClient

    with DigitClient(server, connection=connection) as client:
        found = client.classify(images, **asking)
    columns = (found.labels, found.scores, found.confidences, found.rejected)
    return [
        Verdict(int(label), scores, float(confidence), bool(rejected))
        for label, scores, confidence, rejected in zip(*columns, strict=True)
    ]


def _answered(model: Path | None, images: "np.ndarray") -> list[Verdict]:
    """What a model file says."""
    from jaxnn import answers, metrics, models
    from jaxnn.commands import inputs

    file = inputs.load_model(model)
    found = answers.answer(file, images)
    verdicts = [
        Verdict(int(label), scores, float(confidence), bool(rejected), members=file.spec.members)
        for label, scores, confidence, _, rejected in zip(*found, strict=True)
    ]
    if file.familiar is not None:
        limit = file.familiar.limit
        verdicts = [
            verdict._replace(novelty=float(novelty), limit=limit)
            for verdict, novelty in zip(verdicts, found.novelty, strict=True)
        ]
    if file.spec.members > 1:
        agreement = metrics.agreement(file.params, images, model=models.build(file.spec))
        verdicts = [
            verdict._replace(agreement=float(share))
            for verdict, share in zip(verdicts, agreement, strict=True)
        ]
    return verdicts


def _seen(path: Path, raw: bool, keep: bool) -> Seen:
    """A picture file; the errors name it. Its pixels are kept where they are to be drawn."""
    from jaxnn.data import picture_files, preprocess

    name = picture_files.shown(path)
    picture = preprocess.decode(picture_files.read_file(path), name)
    try:
        digit = _untouched(picture) if raw else preprocess.prepare(picture)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return Seen(str(path), digit, preprocess.upright(picture) if keep else None)


def _untouched(picture: "Picture") -> "np.ndarray":
    """The pixels of a picture that is a digit already, uint8 [28, 28]."""
    import numpy as np

    from jaxnn.data import preprocess

    levels = np.asarray(preprocess.upright(picture))
    levels = levels.reshape(*levels.shape[:2], -1)  # [H, W, 1 or 3]
    side = preprocess.SIDE
    found = f"{picture.width} x {picture.height} pixels"
    if picture.mode.startswith(("I", "F")):
        found += " of more than 8 bits"
    elif np.ptp(levels, axis=2).any():
        found += " in colour"
    elif picture.size == (side, side):
        return np.ascontiguousarray(levels[..., 0])
    raise DataError(
        f"it has {found}, expected {side} x {side} of 8 bits in grey for --raw: "
        "without --raw it is prepared"
    )


def _result(name: str, verdict: Verdict) -> dict[str, Any]:
    result: dict[str, Any] = {
        "image": name,
        "label": verdict.label,
        "confidence": verdict.confidence,
        "rejected": verdict.rejected,
        "novelty": verdict.novelty,
        "scores": verdict.scores.tolist(),
    }
    if verdict.agreement is not None:
        result["agreement"] = verdict.agreement
    return result
