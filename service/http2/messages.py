"""gRPC's messages out of the pieces that a stream brings: five bytes that tell the length, then it.

Pieces are views of a buffer that is used again, so each is copied, once: into its message; but for
those of large messages, which the socket's bytes may be read into (`Assembler.space`).
"""

import zlib
from typing import NamedTuple

import numpy as np

from service.status import Refused, Status

PREFIX = 5  # bytes: 1 for compressed or 0, and the length
FIRST = 2**21  # bytes: more room is taken once so many of a message are there
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Message(NamedTuple):
    """One message as it came."""

    data: bytes | memoryview
    compressed: bool


class Assembler:
    """Puts the messages of one stream together."""

    __slots__ = ("_compressed", "_encoding", "_filled", "_length", "_limit", "_message", "_prefix")

    def __init__(self, encoding: str, limit: int) -> None:
        """Begin before the first message.

        Args:
          encoding: of compressed messages.
          limit: bytes of the largest message, also when it is no longer compressed.
        """
        self._encoding, self._limit = encoding, limit
        self._prefix = b""
        self._message: memoryview | None = None  # where the pieces go
        self._filled = self._length = 0
        self._compressed = False

    @property
    def held(self) -> int:
        """Bytes of a message that is not whole yet."""
        return self._filled + len(self._prefix)

    def space(self, most: int) -> memoryview | None:
        """Where the next bytes of a message belong, `most` at most; None between messages."""
        if self._message is None:
            return None
        return self._message[self._filled : self._filled + most]

    def add(self, piece: memoryview, placed: bool = False) -> list[Message]:
        """The messages that a piece completes, in order; large ones are views of bytes.

        Args:
          piece: what comes next.
          placed: it lies in the `space` that was given out just before.

        Raises:
          Refused: a message is too large, or of a kind that was not agreed on.
        """
        found: list[Message] = []
        at, end = 0, len(piece)
        while at < end:
            if self._message is None:
                start = at
                at = min(at + PREFIX - len(self._prefix), end)
                self._prefix += piece[start:at]
                if len(self._prefix) < PREFIX:
                    break
                length = self._begun()
                if length <= end - at:
                    found.append(Message(bytes(piece[at : at + length]), self._compressed))
                    at += length
                    continue
                self._message, self._filled = _room(min(length, FIRST)), 0
            count = min(len(self._message) - self._filled, end - at)
            if not placed:
                self._message[self._filled : self._filled + count] = piece[at : at + count]
            self._filled += count
            at += count
            if self._filled == self._length:
                message, self._message, self._filled = self._message, None, 0
                found.append(Message(message, self._compressed))
            elif self._filled == len(self._message):
                begun, self._message = self._message, _room(self._length)
                self._message[: self._filled] = begun
        return found

    def _begun(self) -> int:
        """The length of the message whose prefix has come."""
        flag, length = self._prefix[0], int.from_bytes(self._prefix[1:], "big")
        self._prefix = b""
        if flag > 1:
            raise _refused("INTERNAL", f"a message begins with {flag}, expected 0 or 1")
        self._compressed = flag == 1
        if self._compressed and self._encoding == "identity":
            raise _refused("INTERNAL", "a compressed message without grpc-encoding")
        if length > self._limit:
            raise self._too_large(f"{length} bytes")
        self._length = length
        return length

    def unpacked(self, message: Message) -> bytes:
        """A message as its sender wrote it; only now does a compressed one become large.

        Raises:
          Refused: it is too large, or cannot be decompressed.
        """
        if not message.compressed:
            return message.data  # type: ignore[return-value]
        unpacking = zlib.decompressobj(_WINDOWS[self._encoding])
        try:
            found = unpacking.decompress(message.data, self._limit + 1)
        except zlib.error as error:
            raise _refused("INTERNAL", f"a message is no {self._encoding}: {error}") from None
        if len(found) > self._limit:
            raise self._too_large("more, decompressed,")
        if not unpacking.eof:
            raise _refused("INTERNAL", f"a message of {self._encoding} is cut short")
        return found

    def _too_large(self, size: str) -> Refused:
        return _refused(
            "RESOURCE_EXHAUSTED",
            f"a message has {size}, over this server's limit of {self._limit} bytes: "
            "send less at once",
        )


def _room(size: int) -> memoryview:
    """Not zeroed, so that memory is taken as it fills: by pages, above 4 MiB by huge ones."""
    return np.empty(size, np.uint8).data


def _refused(code: str, sentence: str) -> Refused:
    return Refused(Status(code, sentence))
