"""What pictures and recordings were read as: by a model file, or by a server."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from service.calling.connection import Connection

if TYPE_CHECKING:
    import numpy as np

    from service.calling.calls import Asking


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

    def result(self, name: str, sound: bool = False) -> dict[str, Any]:
        """For programs; `name` is the file's."""
        result: dict[str, Any] = {
            "recording" if sound else "image": name,
            "label": self.label,
            "confidence": self.confidence,
            "rejected": self.rejected,
            "novelty": self.novelty,
            "scores": self.scores.tolist(),
        }
        if self.agreement is not None:
            result["agreement"] = self.agreement
        return result


def asked(
    server: str, connection: Connection, given: "np.ndarray | list[bytes]", asking: "Asking"
) -> list[Verdict]:
    """What a server says of images uint8 [N, 28, 28], or of N recordings, WAV files."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines say less than our sentences
    from service.client import DigitClient

    with DigitClient(server, connection=connection) as client:
        if isinstance(given, list):
            found = client.classify_recordings(given, **asking)
        else:
            found = client.classify(given, **asking)
    columns = (found.labels, found.scores, found.confidences, found.rejected)
    return [
        Verdict(int(label), scores, float(confidence), bool(rejected))
        for label, scores, confidence, rejected in zip(*columns, strict=True)
    ]


def answered(model: Path | None, images: "np.ndarray", sound: bool) -> list[Verdict]:
    """What a model file says."""
    from jaxnn import answers, metrics, models
    from jaxnn.commands import hearing, inputs

    file = (hearing if sound else inputs).load_model(model)
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
