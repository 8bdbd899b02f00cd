"""How a server is reached: addresses, TLS and a token, as flags and as values; imports no gRPC."""

import ipaddress
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

from jaxnn.errors import ConfigError

TOKEN = "JAXNN_TOKEN"  # noqa: S105 - the name of the environment variable
_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock):")


@dataclass(frozen=True)
class Connection:
    """Settings of a connection that are not its address; any of TLS's turns TLS on."""

    tls: bool = False
    """Encrypt, and trust the servers that the well-known authorities vouch for."""

    tls_ca: Path | None = None
    """Encrypt, and trust the servers that the authorities in this PEM file vouch for."""

    tls_certificate: Path | None = None
    """The client's own certificate (chain) as a PEM file, where the server asks for one."""

    tls_key: Path | None = None
    """The private key of that certificate, as a PEM file."""

    tls_name: str | None = None
    """The name in the server's certificate, where it is not the address."""

    token: str | None = None
    """Token that says who asks; better set JAXNN_TOKEN, which others on the machine cannot see."""

    token_in_clear: bool = False
    """Send the token to another machine without TLS, for everyone on the way to read."""

    def __post_init__(self) -> None:
        """Refuse what no connection could be made with.

        Raises:
          ConfigError: half of a certificate and its key, or a token that is no HTTP text.
        """
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            raise ConfigError(
                f"{spelled(missing)} is missing: a client's certificate and its private key go "
                "together"
            )
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token):
            raise ConfigError(
                "the token holds a space, a line end or another character that no token has: "
                "give it as the server's administrator did"
            )

    def encrypted(self) -> bool:
        """Whether TLS is on."""
        return self.tls or any((self.tls_ca, self.tls_certificate, self.tls_name))

    def with_environment(self) -> Self:
        """The same, with the token of the environment variable JAXNN_TOKEN where none is given."""
        return replace(self, token=os.environ.get(TOKEN) or None) if self.token is None else self


PLAIN = Connection()


def spelled(name: str) -> str:
    """A setting as Python has it, and as the command line has it."""
    return f"{name} (--{name.replace('_', '-')})"


class Target(NamedTuple):
    """Where servers are."""

    text: str  # as it was given
    uri: str  # as gRPC reads it
    several: bool  # whether it may stand for more than one server
    here: bool  # whether all of them are this machine


def parse_target(text: str) -> Target:
    """The servers that a text names.

    Args:
      text: HOST:PORT, or several IP:PORT with commas between, or a name as gRPC writes it, such
        as dns:///NAME:PORT for every machine behind a name.

    Raises:
      ConfigError: it names no server, or several of which one is not an IP address.
    """
    if _SCHEME.match(text):
        path = text.partition(":")[2].lstrip("/")
        here = text.startswith("unix") or all(map(_is_here, path.split(",")))
        return Target(text, text, not text.startswith(("unix", "vsock")), here)
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        host, colon, port = part.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigError(
                f"the server is {text!r}, expected HOST:PORT, or several IP:PORT,IP:PORT"
            )
    here = all(map(_is_here, parts))
    if len(parts) == 1:
        return Target(text, text, False, here)
    versions = {_ip_version(part) for part in parts}
    if len(versions) > 1 or None in versions:
        raise ConfigError(
            f"the server is {text!r}: several addresses must be IP addresses, all of version 4 or "
            "all of version 6; for the machines behind a name give dns:///NAME:PORT"
        )
    return Target(text, f"ipv{versions.pop()}:{','.join(parts)}", True, here)


def check_token(target: Target, connection: Connection) -> None:
    """Refuse to send a token for everyone to read.

    Raises:
      ConfigError: a token, no TLS, and another machine.
    """
    if (
        connection.token
        and not connection.encrypted()
        and not target.here
        and not connection.token_in_clear
    ):
        raise ConfigError(
            f"a token for {target.text} would cross the network unencrypted: "
            f"turn on TLS with {spelled('tls')} or {spelled('tls_ca')}, or allow it with "
            f"{spelled('token_in_clear')}"
        )


def _ip_version(address: str) -> int | None:
    host = address.rpartition(":")[0]
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        version = ipaddress.ip_address(bare).version
    except ValueError:
        return None
    return version if (version == 6) == (bare != host) else None  # version 6 stands in brackets


def _is_here(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host in ("localhost", "[::1]") or (
        host.startswith("127.") and _ip_version(address) is not None
    )
