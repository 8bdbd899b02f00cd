"""Who may call, and how much: bearer tokens from a file, each with its own rates.

See `service.token_file` for the file.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxnn.errors import ConfigError
from service.errors import Forbidden, Overloaded, Unauthenticated
from service.rpc import Call
from service.token_file import Identity, digest, read_tokens

CHECK_EVERY_S = 1.0

_log = logging.getLogger(__name__)


class Bucket:
    """Tokens that drip in at a rate, up to `burst` seconds of it, and at least one."""

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        """Begin full; `rate` a second."""
        self._rate = rate
        self._capacity = self._level = max(1.0, rate * burst)
        self._at = -math.inf

    def wait(self, cost: float, now: float) -> float:
        """Seconds until `cost` may be taken; 0 for now.

        A cost above the bucket's size may be taken from a full one, which then owes the rest: a
        large request passes, and its rate holds all the same.
        """
        self._level = min(self._capacity, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
        return max(0.0, (min(cost, self._capacity) - self._level) / self._rate)

    def take(self, cost: float) -> None:
        """Take what `wait` has allowed."""
        self._level -= cost


class Account(NamedTuple):
    """A token and what is left of its rates."""

    identity: Identity
    requests: Bucket | None  # None: no limit
    images: Bucket | None


class Tokens:
    """The tokens of a file, read again when it changes.

    For one thread. What it remembers grows with the file only, whatever callers send.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file.

        Raises:
          ConfigError: it cannot be read, or something in it is wrong.
        """
        self._path = path
        self._clock = clock
        self._checked = clock()
        self._seen = self._stamp()
        self._accounts: dict[str, Account] = {}  # by name
        self._identities: dict[str, Identity] = {}  # by the SHA-256 of the token
        self._take_over(read_tokens(path))

    def authorise(self, call: Call, control: bool = False) -> Identity:
        """Whose call it is.

        Args:
          call: with "authorization: Bearer TOKEN" in its metadata.
          control: the method changes what is served (`rpc.Method.control`).

        Raises:
          Unauthenticated: no token, or not one of the file.
          Forbidden: the token is good, but not for this method.
        """
        self._look()
        scheme, _, token = (call.metadata("authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "the request shows no token: send the metadata `authorization: Bearer TOKEN`"
            )
        # Looked up by its hash: how long that takes says nothing about the tokens of others.
        identity = self._identities.get(digest(token.strip()))
        if identity is None:
            raise Unauthenticated("the token is not one of this server's: ask for a new one")
        if control and not identity.admin:
            raise Forbidden(
                f"token {identity.name} may not call {call.method}: use one with admin = true"
            )
        return identity

    def charge(self, identity: Identity, images: int, now: float, requests: int = 1) -> None:
        """Takes a request and its images from the token's rates, or nothing of either.

        Args:
          identity: from `authorise`.
          images: of the request; 0 where they are charged later.
          now: seconds, of a clock that does not go back.
          requests: 0 for images whose request has been charged before.

        Raises:
          Overloaded: too fast; says when to come back.
          Unauthenticated: the token has been withdrawn since.
        """
        account = self._accounts.get(identity.name)
        if account is None:
            raise Unauthenticated(f"token {identity.name} has been withdrawn: ask for a new one")
        identity, by_requests, by_images = account
        if by_requests and (wait := by_requests.wait(requests, now)) > 0:
            raise _too_fast(identity, f"{identity.requests_per_second:g} requests", wait)
        if by_images and images:
            if (wait := by_images.wait(images, now)) > 0:
                raise _too_fast(identity, f"{identity.images_per_second:g} images", wait)
            by_images.take(images)
        if by_requests:
            by_requests.take(requests)

    def reload(self) -> None:
        """Reads the file again; one with a mistake leaves the tokens as they were, and is logged.

        Buckets of tokens whose table has not changed keep what is in them.
        """
        self._seen = self._stamp()
        try:
            self._take_over(read_tokens(self._path))
        except ConfigError as error:
            _log.error("the tokens of before stay in use: %s", error)

    def _look(self) -> None:
        """Reads the file again where it has changed; looks at most once a second."""
        now = self._clock()
        if now - self._checked >= CHECK_EVERY_S:
            self._checked = now
            if self._stamp() != self._seen:
                self.reload()

    def _take_over(self, identities: dict[str, Identity]) -> None:
        if identities == self._identities:
            return
        before, self._accounts = self._accounts, {}
        self._identities = identities
        for identity in identities.values():
            account = before.get(identity.name)
            if account is None or account.identity != identity:
                account = _new_account(identity)
            self._accounts[identity.name] = account
        count = len(identities)
        _log.info("%d token%s read from %s", count, "" if count == 1 else "s", self._path)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            about = self._path.stat()
        except OSError:
            return None
        return about.st_mtime_ns, about.st_size, about.st_ino


def _new_account(identity: Identity) -> Account:
    requests, images = (
        None if rate is None else Bucket(rate, identity.burst)
        for rate in (identity.requests_per_second, identity.images_per_second)
    )
    return Account(identity, requests, images)


def _too_fast(identity: Identity, rate: str, wait: float) -> Overloaded:
    return Overloaded(
        f"token {identity.name} is over its {rate} a second: come back in {wait:.3g} s", wait
    )
