"""`jaxnn classify`."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from jaxnn.commands import verdicts
from jaxnn.commands.output import say, write_json
from jaxnn.errors import ConfigError, DataError
from service.calling.connection import PLAIN, Connection

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture


class Seen(NamedTuple):
    """A picture, and what the network sees of it."""

    name: str
    digit: "np.ndarray"  # uint8 [28, 28]; of a recording, its row of steps
    picture: "Picture | None"  # in mode L or RGB, where it is to be drawn
    file: bytes = b""  # of a recording


@dataclass(frozen=True)
class Classify:
    """Read the digit in each picture, here or on a server."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Picture files: PNG, JPEG, WebP, BMP, TIFF or GIF; or recordings of a digit each: WAV."""
    model: Path | None = None
    """A model file, or cnn for the other network that ships with jaxnn; the first one for pictures,
    and the one for speech for recordings, where not given."""
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
        from jaxnn.commands import hearing, inputs
        from jaxnn.data.picture_files import shown

        sounds = [path for path in self.images if hearing.is_sound(path)]
        if sounds:
            self.check_sounds(sounds)
        elif self.model and hearing.hears(self.model):
            raise ConfigError(
                f"{self.model} hears words, but {shown(self.images[0])} is no WAV file: name the "
                "model file of a network for pictures, or a recording"
            )
        if self.plot:
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
                seen = _heard(path) if sounds else _seen(path, self.raw, keep=self.plot is not None)
                pictures.append(seen)
            except DataError as error:
                unread.append(str(error))
        found = []
        if pictures:
            found = self._verdicts(pictures, sound=bool(sounds))
        results = []
        for seen, verdict in zip(pictures, found, strict=True):
            results.append(verdict.result(seen.name, sound=bool(sounds)))
            say(f"{shown(seen.name)}: {verdict.text()}", self.json)
        write_json(self.json, {"results": results, "unread": unread})
        for seen, verdict in zip(pictures, found, strict=True):
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

    def check_sounds(self, sounds: list[Path]) -> None:
        """Raises ConfigError where recordings do not go with the flags or the other files."""
        from jaxnn.commands import hearing
        from jaxnn.data.picture_files import shown

        name = shown(sounds[0])
        if len(sounds) < len(self.images):
            raise ConfigError(f"{name} is a recording, others are not: classify them apart")
        if self.raw or self.plot:
            raise ConfigError(f"{name} is a recording, --raw and --plot are for pictures")
        if self.model and not hearing.hears(self.model):
            raise ConfigError(
                f"{self.model} is not for speech, but {name} is a recording: name a model file "
                "trained on speech, or a picture"
            )

    def _verdicts(self, given: list[Seen], sound: bool) -> list[verdicts.Verdict]:
        """For N pictures, or N recordings, N at least 1."""
        import numpy as np

        images = np.stack([seen.digit for seen in given])
        if self.server:
            name, _, version = (self.server_model or "").partition(":")
            connection = self.connection.with_environment()
            files = [seen.file for seen in given]
            return verdicts.asked(
                self.server,
                connection,
                files if sound else images,
                {"model": name, "version": version},
            )
        return verdicts.answered(self.model, images, sound)


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


def _heard(path: Path) -> Seen:
    """A recording of one digit; the errors name it."""
    from jaxnn.data import picture_files, speech, wav

    name = picture_files.shown(path)
    file = picture_files.read_file(path)
    samples = wav.decode(file, name, speech.MAX_SECONDS)
    return Seen(str(path), speech.prepare(samples), None, file)


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
