"""Where settings come from: defaults < the file of --config < the environment < flags.

A file is TOML, a line a setting. In the environment a setting has its name in capital letters
after JAXNN_SERVE_: not after JAXNN_ alone, where Kubernetes puts JAXNN_PORT=tcp://... for a
service that is called jaxnn. An empty text is "none", for settings that can be none.
"""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import itertools
import json
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from jaxnn.errors import ConfigError
from service.config import ServiceConfig

PREFIX = "JAXNN_SERVE_"
FILE_FLAG, FILE_VARIABLE = "--config", f"{PREFIX}CONFIG"
MAX_FILE_BYTES = 2**20
_TRUTHS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}

C = TypeVar("C")


def base(kind: type[C], argv: Sequence[str], environ: Mapping[str, str]) -> C:
    """The settings that flags then change.

    Only each for itself is checked: the checks of `kind` itself have not run, since a flag may
    still bring what goes with a setting of the file. They run when the flags are read in.

    Args:
      kind: a dataclass with a default for every field.
      argv: the command line, for --config FILE; nothing else of it is looked at.
      environ: as os.environ; JAXNN_SERVE_CONFIG names the file where no flag does.

    Raises:
      ConfigError: the file cannot be read; a name is no setting; a value does not fit.
    """
    named = file_named(argv) or environ.get(FILE_VARIABLE)
    values = from_file(kind, Path(named)) if named else {}
    values |= from_environment(kind, environ)
    draft = object.__new__(kind)
    for name, default in vars(kind()).items():
        object.__setattr__(draft, name, values.get(name, default))
    return draft


def file_named(argv: Sequence[str]) -> str | None:
    """The last FILE of --config FILE or --config=FILE in a command line.

    Raises:
      ConfigError: --config is the last word.
    """
    found = None
    for at, word in enumerate(argv):
        if word == FILE_FLAG:
            if at + 1 == len(argv):
                raise ConfigError(f"{FILE_FLAG} names no file: write {FILE_FLAG} FILE")
            found = argv[at + 1]
        elif word.startswith(f"{FILE_FLAG}="):
            found = word.removeprefix(f"{FILE_FLAG}=")
    return found


def from_file(kind: type, path: Path) -> dict[str, Any]:
    """The settings that a file holds.

    Raises:
      ConfigError: see `base`.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"settings {path} cannot be read: {error.strerror}") from error
    if len(blob) > MAX_FILE_BYTES:
        raise ConfigError(f"settings {path} are over {MAX_FILE_BYTES} bytes, expected a TOML file")
    return _from_toml(kind, blob, str(path))


def parsed(text: str) -> ServiceConfig:
    """The settings that `printed` wrote, for another process; checked as a whole.

    Raises:
      ConfigError: it wrote no such text.
    """
    return ServiceConfig(**_from_toml(ServiceConfig, text.encode(), "text"))


def _from_toml(kind: type, blob: bytes, where: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(blob.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"settings {where} are no TOML ({error}): mend them") from error
    fields = hints(kind)
    for name in content:
        if name not in fields:
            raise ConfigError(f"{where}: {name} is no setting{_nearest(name, fields)}")
    return {
        name: _fitting(value, fields[name], f"{where}: {name}") for name, value in content.items()
    }


def from_environment(kind: type, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that the environment holds.

    Raises:
      ConfigError: see `base`.
    """
    fields = {PREFIX + name.upper(): name for name in hints(kind)}
    found = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        text = environ[variable]
        if text.startswith("tcp://") or variable == f"{PREFIX}SERVICE_HOST":
            raise ConfigError(
                f"{variable} is {text!r}, which Kubernetes sets for a service called jaxnn-serve: "
                "give the service another name, or its pods enableServiceLinks: false"
            )
        if variable not in fields:
            raise ConfigError(f"{variable} is no setting{_nearest(variable, fields)}")
        name = fields[variable]
        found[name] = _read(text, hints(kind)[name], variable)
    return found


def printed(config: Any) -> str:
    """All settings as a TOML file that reads back to the same, each under its sentence."""
    told = sentences(type(config))
    return "# An empty text is none.\n\n" + "\n".join(
        f"# {told.get(name, '')}\n{name} = {_toml(getattr(config, name))}\n"
        for name in hints(type(config))
    )


def table(kind: type) -> str:
    """All settings as a Markdown table: flag, variable, default and sentence."""
    lines = ["| Flag | Variable | Default | What it sets |", "|---|---|---|---|"]
    told, defaults = sentences(kind), kind()
    for name in hints(kind):
        default = getattr(defaults, name)
        flag = f"--{'no-' if default is True else ''}{name.replace('_', '-')}"
        shown = "none" if default in (None, ()) else f"`{_toml(default)}`".replace('"', "")
        sentence = told.get(name, "").replace("|", "\\|")
        lines.append(f"| `{flag}` | `{PREFIX}{name.upper()}` | {shown} | {sentence} |")
    return "\n".join(lines) + "\n"


def hints(kind: type) -> dict[str, Any]:
    """The type of each setting, in order."""
    found = typing.get_type_hints(kind)
    return {field.name: found[field.name] for field in dataclasses.fields(kind) if field.init}


def sentences(kind: type) -> dict[str, str]:
    """What stands under each setting in the source of its class; those without are left out."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef))
    found = {}
    for line, below in itertools.pairwise(body):
        match line, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                found[name] = " ".join(text.split())
    return found


def _fitting(value: Any, hint: Any, where: str) -> Any:
    """A value of TOML as a setting of this type."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if types.NoneType in inside:
        return None if value == "" else _fitting(value, inside[0], where)
    if origin is tuple and type(value) is list:
        return tuple(_fitting(one, inside[0], where) for one in value)
    if origin is Literal and any(value == one and type(value) is type(one) for one in inside):
        return value
    if type(value) is str and hint in (str, Path) and _can_be_written(value, hint):
        return hint(value)
    if type(value) is int and hint is float and abs(value) < 2**53:
        return float(value)
    if hint in (bool, int, float) and type(value) is hint:
        return value
    raise ConfigError(f"{where} is {_short(value)}, expected {_expected(hint)}")


def _read(text: str, hint: Any, where: str) -> Any:
    """A text of the environment as a setting of this type."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if types.NoneType in inside:
        return None if text == "" else _read(text, inside[0], where)
    if origin is tuple:
        return tuple(_read(one.strip(), inside[0], where) for one in text.split(",") if one.strip())
    value: Any = text
    with contextlib.suppress(ValueError, KeyError):
        if hint is bool:
            value = _TRUTHS[text.strip().lower()]
        elif hint in (int, float):
            value = hint(text)
        elif origin is Literal:
            value = {str(one): one for one in inside}[text]
    return _fitting(value, hint, where)


def _can_be_written(text: str, hint: type) -> bool:
    """Whether a text is one, and for a path also names something."""
    return not re.search("[\ud800-\udfff]", text) and (
        hint is str or (text != "" and "\0" not in text)
    )


def _expected(hint: Any) -> str:
    inside = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, inside))}"
    if typing.get_origin(hint) is tuple:
        return "a list of texts"
    return {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        Path: "a path",
    }[hint]


def _toml(value: Any) -> str:
    """A setting as TOML writes it."""
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's escapes are TOML's, but for one control character that JSON lets stand.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, names, 1, 0.5)
    return f": did you mean {close[0]}?" if close else ": `jaxnn serve --help` lists them"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
