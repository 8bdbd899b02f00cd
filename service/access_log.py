"""The access log: one line of JSON a call, or of a share of the calls.

What is written:
  - calls that failed by the server's own fault (SERVER_FAULTS): always;
  - other calls that failed: unless the share is 0, at most FAILURES_PER_SECOND of them, so that a
    storm of bad requests is no storm of lines; `omitted` in the next line counts the others;
  - calls that were answered: the share of them, chosen by chance.

A line never holds metadata (so no token), pictures or raw characters from a caller. A thread of
its own writes: a reader that does not read holds up no call, and costs lines, not memory.
"""

import json
import random
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, TextIO

from jaxnn.errors import ConfigError
from service.rpc import Call

SERVER_FAULTS = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE"})
FAILURES_PER_SECOND = 100
WAITING_LINES = 10_000
TEXT = 200  # characters of one text of a line
GATHER_S = 0.1  # lines of this long are written together

_encoded = json.JSONEncoder(separators=(",", ":")).encode


class AccessLog:
    """Writes lines about calls; `finished` is for one thread."""

    def __init__(self, share: float, stream: TextIO | None = None, seed: int | None = None) -> None:
        """Begin.

        Args:
          share: of the calls that were answered, 0 to 1.
          stream: to write to; standard error where it is None.
          seed: for the same choice of calls again.

        Raises:
          ConfigError: the share is out of its range.
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"the share of calls to log is {share}, expected 0 to 1")
        self._share = share
        self._stream = sys.stderr if stream is None else stream
        self._random = random.Random(seed).random  # noqa: S311 - a sample, not a secret
        self._second = 0
        self._failures = 0  # in this second
        self._omitted = 0  # since the last line
        self._lines: deque[dict[str, Any]] = deque()
        self._waiting = threading.Event()
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._writer.start()

    def finished(self, call: Call, code: str, sentence: str = "") -> None:
        """Takes note of a call that has ended.

        Args:
          call: what is known of it.
          code: the status's name, such as "OK".
          sentence: what the caller was told, where it failed.
        """
        if code == "OK":
            if self._random() >= self._share:
                return
        elif code not in SERVER_FAULTS and not self._room_for_a_failure():
            return
        if len(self._lines) >= WAITING_LINES:
            self._omitted += 1
            return
        line = {
            "time": time.time(),
            "request": call.request_id,
            "api": call.api,
            "method": call.method,
            "model": call.model,
            "version": call.version,
            "caller": call.caller,
            "peer": call.wire.peer(),
            "code": code,
            "images": call.rows,
            "ms": _ms(time.monotonic() - call.arrived),
            "queue_ms": _ms(call.queue),
            "compute_ms": _ms(call.compute),
            "batch": call.batch_rows,
        }
        if sentence:
            line["sentence"] = sentence
        if self._omitted:
            line["omitted"], self._omitted = self._omitted, 0
        self._lines.append(line)
        if not self._waiting.is_set():
            self._waiting.set()

    def close(self, patience: float = 1.0) -> None:
        """Writes what waits, for at most `patience` seconds."""
        self._closing.set()
        self._waiting.set()
        self._writer.join(patience)

    def _room_for_a_failure(self) -> bool:
        if not self._share:
            return False
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._failures = second, 0
        self._failures += 1
        if self._failures > FAILURES_PER_SECOND:
            self._omitted += 1
        return self._failures <= FAILURES_PER_SECOND

    def _write(self) -> None:
        last = False
        while not last:
            self._waiting.wait()
            self._closing.wait(GATHER_S)
            self._waiting.clear()
            last = self._closing.is_set()  # asked after clear: close sets it before `waiting`
            text = "".join([_text(self._lines.popleft()) for _ in range(len(self._lines))])
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # the reader is gone, or the stream closed: nobody reads
                return


def _text(line: dict[str, Any]) -> str:
    """A line as JSON in ASCII."""
    moment = datetime.fromtimestamp(line["time"], UTC).isoformat(timespec="milliseconds")
    safe = {
        key: printable(value) if isinstance(value, str) else value for key, value in line.items()
    }
    safe["time"] = moment.replace("+00:00", "Z")
    return _encoded(safe) + "\n"


def printable(text: str) -> str:
    """A text of a caller that is safe in a log: cut, control characters as "?"."""
    text = text[:TEXT]
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
