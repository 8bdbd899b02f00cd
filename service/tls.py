"""TLS for the server: certificates read, checked, and read again when their files change.

gRPC asks for them before the handshake of every new connection; connections that are open keep
what they were opened with. `ssl` of the standard library only checks: gRPC has a TLS of its own.
"""

import logging
import re
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from jaxnn.errors import ConfigError

CHECK_EVERY_S = 1.0
MAX_FILE_BYTES = 2**20
FIRST_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)

_log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """The bytes of the files, checked to fit each other."""

    key: bytes
    certificate: bytes  # the chain, the server's own certificate first
    client_ca: bytes | None
    expires: float  # seconds since 1970: when the first certificate ends


class Certificates:
    """The server's certificate chain and key, and whom it asks for a certificate of their own.

    With a client CA every caller must show a certificate that it signed (mTLS).
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read and check the files.

        Args:
          certificate: PEM file of the chain.
          key: PEM file of the private key, not encrypted.
          client_ca: PEM file of the authorities that sign callers' certificates.
          clock: in seconds.

        Raises:
          ConfigError: a file is missing or no PEM file, or key and certificate do not match.
        """
        self._files = certificate, key, client_ca
        self._clock = clock
        self._seen = _stamp(self._files)
        self._checked = clock()
        self.pair = read_pair(*self._files)
        if self.pair.expires < time.time():
            _log.warning("%s: callers will refuse it", _expired(certificate, self.pair))
        else:
            asked = f", for callers with one of {client_ca}" if client_ca else ""
            _log.info(
                "certificate %s is good until %s%s", certificate, _date(self.pair.expires), asked
            )

    def credentials(self) -> grpc.ServerCredentials:
        """For the port: gRPC comes back to `fetch` with every new connection."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self.pair), self.fetch, self.pair.client_ca is not None
        )

    def fetch(self) -> Any | None:
        """The new configuration where the files have changed; None to go on with the old.

        Looks at most once a second. Never raises: gRPC would refuse the connection.
        """
        now = self._clock()
        if now - self._checked < CHECK_EVERY_S:
            return None
        self._checked = now
        stamp = _stamp(self._files)
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            pair = _successor(*self._files)
        except ConfigError as error:
            _log.error("the certificates of before stay in use: %s", error)
            return None
        if pair == self.pair:
            return None
        self.pair = pair
        _log.info("new certificates in use, until %s", _date(pair.expires))
        return _configuration(pair)


def read_pair(certificate: Path, key: Path, client_ca: Path | None) -> Pair:
    """Reads the files and checks that gRPC can use them.

    Raises:
      ConfigError: a file is missing or no PEM file, or key and certificate do not match.
    """
    chain, secret = _read(certificate, "certificate"), _read(key, "private key")
    if b"ENCRYPTED" in secret:
        raise ConfigError(
            f"private key {key} is encrypted, expected one without a password: "
            "`openssl pkey` writes one"
        )
    first = FIRST_CERTIFICATE.search(chain)
    try:
        expires = end_of_validity(
            ssl.PEM_cert_to_DER_cert(first[0].decode("ascii") if first else "")
        )
    except (ValueError, IndexError) as error:
        raise ConfigError(
            f"certificate {certificate} holds no certificate that can be read: expected a PEM "
            "file, with -----BEGIN CERTIFICATE-----"
        ) from error
    try:
        # The empty password keeps OpenSSL from asking for one in the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, "")
    except (OSError, ValueError) as error:
        if "MISMATCH" in str(error):
            raise ConfigError(
                f"private key {key} does not belong to certificate {certificate}: name a pair"
            ) from error
        raise ConfigError(
            f"certificate {certificate} and private key {key} cannot be used "
            f"({_reason(error)}): expected PEM files"
        ) from error
    # OpenSSL reads files itself: what it has checked must be what gRPC is given.
    if (chain, secret) != (_read(certificate, "certificate"), _read(key, "private key")):
        raise ConfigError(f"certificate {certificate} or its key changed while it was read")
    return Pair(secret, chain, None if client_ca is None else _authorities(client_ca), expires)


def _successor(certificate: Path, key: Path, client_ca: Path | None) -> Pair:
    """A pair to take over from one that works, which an expired one must not."""
    pair = read_pair(certificate, key, client_ca)
    if pair.expires < time.time():
        raise ConfigError(_expired(certificate, pair))
    return pair


# By hand, since `ssl` describes only authorities (get_ca_certs) and the peer of a connection, and
# the package `cryptography` would be a large dependency for one date.
def end_of_validity(der: bytes) -> float:
    """When a certificate ends, in seconds since 1970.

    Source: RFC 5280, section 4.1: Certificate, TBSCertificate and Validity.

    Raises:
      ValueError: no certificate.
    """
    tbs = _parts(_parts(_parts(der)[0][1])[0][1])
    validity = tbs[4 if tbs[0][0] == 0xA0 else 3]  # the version comes first, where there is one
    tag, text = _parts(validity[1])[1]
    form = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}.get(tag, "")
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """The tags and contents that follow each other in DER."""
    found, at = [], 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            digits = size & 0x7F
            size, at = int.from_bytes(der[at : at + digits], "big"), at + digits
        if at + size > len(der):
            raise ValueError("the certificate is cut short")
        found.append((tag, der[at : at + size]))
        at += size
    return found


def _authorities(path: Path) -> bytes:
    blob = _read(path, "client CA")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=blob.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"client CA {path} holds no certificate that can be used ({_reason(error)}): "
            "expected a PEM file"
        ) from error
    return blob


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from error
    if len(blob) > MAX_FILE_BYTES:
        raise ConfigError(f"{what} {path} is over {MAX_FILE_BYTES} bytes, expected a PEM file")
    return blob


def _stamp(paths: tuple[Path | None, ...]) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when a file is written or replaced."""
    stamps: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            about = path.stat() if path else None
        except OSError:
            about = None
        stamps.append(about and (about.st_mtime_ns, about.st_size, about.st_ino))
    return tuple(stamps)


def _configuration(pair: Pair) -> Any:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], pair.client_ca)


def _expired(certificate: Path, pair: Pair) -> str:
    return f"certificate {certificate} ended on {_date(pair.expires)}"


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()
