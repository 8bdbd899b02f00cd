"""The file of tokens: who may call, how fast, and what they may do.

It is TOML, a table a token, and holds only the SHA-256 of each token:

    [tokens.alice]
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    requests_per_second = 100.0  # no limit where it is left out
    images_per_second = 5000.0   # no limit where it is left out
    burst = 2.0                  # seconds of each rate that may be spent at once; 1 by default
    admin = true                 # may load and unload models; false by default
    priority = 1                 # where a request names none; 0, the server's own, by default
"""

import hashlib
import re
import secrets
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from jaxnn.errors import ConfigError

MAX_FILE_BYTES = 2**20  # about 5,000 tokens
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # it stands in logs
DIGEST = re.compile(r"[0-9a-f]{64}")
KEYS = ("sha256", "requests_per_second", "images_per_second", "burst", "admin", "priority")


class Identity(NamedTuple):
    """A caller that has shown its token."""

    name: str
    admin: bool = False
    priority: int = 0
    requests_per_second: float | None = None  # None: no limit
    images_per_second: float | None = None
    burst: float = 1.0  # seconds


def digest(token: str) -> str:
    """The SHA-256 of a token, as the file holds it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_token(name: str) -> tuple[str, str]:
    """A token that nobody has had before, and its table for the file.

    Raises:
      ConfigError: no name for a token.
    """
    _check_name(name, "the new token")
    token = secrets.token_urlsafe(32)
    return token, f'[tokens."{name}"]\nsha256 = "{digest(token)}"\n'


def read_tokens(path: Path) -> dict[str, Identity]:
    """The callers of a token file by the SHA-256 of their tokens.

    Raises:
      ConfigError: the file cannot be read, or something in it is wrong.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"token file {path} cannot be read: {error.strerror}") from error
    if len(blob) > MAX_FILE_BYTES:
        raise ConfigError(f"token file {path} is over {MAX_FILE_BYTES} bytes: split it")
    try:
        content = tomllib.loads(blob.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"token file {path} is no TOML ({error}): mend it") from error
    tables = content.pop("tokens", None)
    if content or not isinstance(tables, dict) or not tables:
        raise ConfigError(
            f"token file {path} holds {sorted(content) or 'no token'}, expected a table "
            "[tokens.NAME] for each token: `jaxnn serve --new-token NAME` writes one"
        )
    found: dict[str, Identity] = {}
    for name, table in tables.items():
        key, identity = _identity(name, table, f"token file {path}: tokens.{name}")
        if key in found:
            raise ConfigError(
                f"token file {path}: {found[key].name} and {name} have the same sha256: "
                "give each a token of its own"
            )
        found[key] = identity
    return found


def _identity(name: str, table: Any, where: str) -> tuple[str, Identity]:
    """A table's SHA-256 and what it says."""
    _check_name(name, where)
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is of type {type(table).__name__}, expected a table")
    if unknown := sorted(table.keys() - set(KEYS)):
        raise ConfigError(f"{where} has {unknown[0]}, expected only {', '.join(KEYS)}")
    key = table.get("sha256")
    if not isinstance(key, str) or not DIGEST.fullmatch(key.lower()):
        # Without its value, which may be the token itself, put there by mistake.
        raise ConfigError(f"{where}.sha256 is not the 64 hexadecimal digits of a token's SHA-256")
    if type(admin := table.get("admin", False)) is not bool:
        raise ConfigError(f"{where}.admin is {admin!r}, expected true or false")
    priority = table.get("priority", 0)
    if type(priority) is not int or not 0 <= priority < 2**32:
        raise ConfigError(f"{where}.priority is {priority!r}, expected a whole number from 0")
    return key.lower(), Identity(
        name,
        admin,
        priority,
        _positive(table, "requests_per_second", where),
        _positive(table, "images_per_second", where),
        _positive(table, "burst", where) or 1.0,
    )


def _positive(table: dict[str, Any], key: str, where: str) -> float | None:
    value = table.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not 1e-3 <= value <= 1e9:
        raise ConfigError(f"{where}.{key} is {value!r}, expected a number from 0.001 to 1e9")
    return float(value)


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{where} has the name {name[:80]!r}, expected 1 to 64 letters, digits, '_', '.' or '-'"
        )
