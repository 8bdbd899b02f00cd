"""Settings: each source, which one wins, what is refused, and what the page says of them."""

import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.errors import ConfigError
from service.config import ServiceConfig
from service.settings import (
    PREFIX,
    base,
    file_named,
    from_environment,
    from_file,
    hints,
    parsed,
    printed,
    sentences,
    table,
)

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "serving.md"


@dataclass(frozen=True)
class Every:
    """A setting of each type."""

    count: int = 3
    """How many."""
    part: float = 0.5
    """How much,
    on two lines."""
    loud: bool = False
    """Whether | loudly."""
    quiet: bool = True
    """Whether quietly."""
    name: str = "x"
    """Who."""
    file: Path | None = None
    """Where."""
    folder: Path = Path("here")
    """Where else."""
    port: int | None = None
    """Through what."""
    parts: tuple[str, ...] = ()
    """Which."""
    mode: Literal["fast", "small"] = "fast"
    """How."""


# No lone surrogates: no text file has them. No NUL: no path has it. The rest is fair.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
paths = texts.filter(bool).map(Path)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**62), 2**62),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: texts,
    Path: paths,
    Path | None: st.none() | paths,
    int | None: st.none() | st.integers(),
    str | None: st.none() | texts.filter(bool),  # an empty text is none
    tuple[str, ...]: st.lists(texts, max_size=4).map(tuple),
    Literal["fast", "small"]: st.sampled_from(["fast", "small"]),
    Literal["grpcio", "lean"]: st.sampled_from(["grpcio", "lean"]),
}


def drafts(kind: type) -> st.SearchStrategy[Any]:
    """Settings of any value, also out of their ranges."""

    def made(values: dict[str, Any]) -> Any:
        draft: Any = object.__new__(kind)
        for name, value in values.items():
            object.__setattr__(draft, name, value)
        return draft

    return st.fixed_dictionaries({name: VALUES[hint] for name, hint in hints(kind).items()}).map(
        made
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "serve.toml"


@pytest.mark.parametrize("kind", [Every, ServiceConfig])
@settings(max_examples=25)
@given(st.data())
def test_what_is_printed_reads_back_to_the_same(
    page: Path, kind: type, data: st.DataObject
) -> None:
    config = data.draw(drafts(kind))
    page.write_text(printed(config), newline="")
    assert from_file(kind, page) == vars(config)
    assert vars(base(kind, ["serve", "--config", str(page)], {})) == vars(config)


@settings(max_examples=25)
@given(drafts(Every))
def test_the_environment_holds_every_type(config: Every) -> None:
    given_ = {
        name: ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        for name, value in vars(config).items()
    }
    expected = vars(config) | {
        "parts": tuple(part.strip() for part in given_["parts"].split(",") if part.strip())
    }
    environ = {PREFIX + name.upper(): text for name, text in given_.items()}
    assert from_environment(Every, environ) == expected


def test_flags_win_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("count = 10\npart = 1\nloud = true\n")
    environ = {"JAXNN_SERVE_COUNT": "20", "JAXNN_SERVE_PART": "2", "HOME": "x"}
    argv = ["serve", f"--config={file}", "--count", "30"]
    default = base(Every, argv, environ)
    assert default == Every(count=20, part=2.0, loud=True)
    assert type(default.part) is float
    assert tyro.cli(Every, default=default, args=argv[2:]) == Every(30, 2.0, True)


def test_a_flag_may_bring_what_goes_with_a_setting_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('tls_certificate = "cert.pem"\n')
    default = base(ServiceConfig, ["--config", str(file)], {})
    with pytest.raises(SystemExit):  # it is checked once the flags are in
        tyro.cli(ServiceConfig, default=default, args=[])
    assert "tls_certificate and tls_key belong together" in capsys.readouterr().err
    made = tyro.cli(ServiceConfig, default=default, args=["--tls-key", "key.pem"])
    assert (made.tls_certificate, made.tls_key) == (Path("cert.pem"), Path("key.pem"))


def test_another_process_gets_the_same_settings() -> None:
    config = ServiceConfig(port=0, canary=("digits=7:5%",), tokens=Path("ü/t.toml"), metrics_port=0)
    assert parsed(printed(config)) == config
    with pytest.raises(ConfigError, match="port is 70000"):
        parsed(printed(config).replace("\nport = 0", "\nport = 70000"))


def test_without_sources_there_are_the_defaults() -> None:
    assert base(ServiceConfig, [], {"JAXNN_PORT": "tcp://10.0.0.1:50051"}) == ServiceConfig()


def test_the_file_is_named_by_a_flag_or_else_by_the_environment(tmp_path: Path) -> None:
    one, other = tmp_path / "1.toml", tmp_path / "2.toml"
    one.write_text("count = 1\n")
    other.write_text("count = 2\n")
    environ = {"JAXNN_SERVE_CONFIG": str(other)}
    assert base(Every, [], environ).count == 2
    assert base(Every, ["--config", str(one)], environ).count == 1
    assert file_named(["--config", "a", "--config=b", "--count", "1"]) == "b"
    assert base(Every, [], {"JAXNN_SERVE_CONFIG": ""}) == Every()
    with pytest.raises(ConfigError, match="--config names no file"):
        file_named(["serve", "--config"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cuont = 1", r"serve.toml: cuont is no setting: did you mean count\?"),
        ("zzzzzz = 1", "zzzzzz is no setting: `jaxnn serve --help` lists them"),
        ("[serve]\ncount = 1", "serve is no setting"),
        ("count = '3'", "serve.toml: count is '3', expected a whole number"),
        ("count = true", "count is True, expected a whole number"),
        ("count = 1.0", "count is 1.0, expected a whole number"),
        ("part = true", "part is True, expected a number"),
        ("part = '0.5'", "part is '0.5', expected a number"),
        (f"part = 1{'0' * 400}", r"part is 10+\.\.\., expected a number"),
        ("loud = 1", "loud is 1, expected true or false"),
        ("loud = 'true'", "loud is 'true', expected true or false"),
        ("name = 1", "name is 1, expected a text"),
        ("folder = ''", "folder is '', expected a path"),
        ("folder = '/'\nfile = \"a\\u0000b\"", r"file is 'a\\x00b', expected a path"),
        ("parts = 'a'", "parts is 'a', expected a list of texts"),
        ("parts = ['a', 1]", "parts is 1, expected a text"),
        ("mode = 'slow'", "mode is 'slow', expected one of fast, small"),
        ("port = 'x'", "port is 'x', expected a whole number"),
        ("count = ", "serve.toml are no TOML"),
        ("count = " + "[" * 100_000, "serve.toml are no TOML"),
        ("#" * (2**20 + 1), "serve.toml are over 1048576 bytes"),
    ],
)
def test_each_mistake_in_the_file_is_one_sentence(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(line)
    with pytest.raises(ConfigError, match=words) as caught:
        base(Every, ["--config", str(file)], {})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_no_file_is_one_sentence(tmp_path: Path) -> None:
    for name in ("none.toml", ""):
        with pytest.raises(ConfigError, match=r"settings .* cannot be read: "):
            from_file(Every, tmp_path / name)


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("COUNTS", "1", r"JAXNN_SERVE_COUNTS is no setting: did you mean JAXNN_SERVE_COUNT\?"),
        ("COUNT", "many", "JAXNN_SERVE_COUNT is 'many', expected a whole number"),
        ("COUNT", "", "JAXNN_SERVE_COUNT is '', expected a whole number"),
        ("COUNT", "9" * 5000, "expected a whole number"),
        ("PART", "half", "JAXNN_SERVE_PART is 'half', expected a number"),
        ("LOUD", "maybe", "JAXNN_SERVE_LOUD is 'maybe', expected true or false"),
        ("MODE", "slow", "JAXNN_SERVE_MODE is 'slow', expected one of fast, small"),
        ("FOLDER", "", "JAXNN_SERVE_FOLDER is '', expected a path"),
        ("NAME", "\udcff", "expected a text"),
        ("PORT", "x", "JAXNN_SERVE_PORT is 'x', expected a whole number"),
        ("PORT", "tcp://10.0.0.1:50051", "Kubernetes sets for a service called jaxnn-serve"),
        ("SERVICE_HOST", "10.0.0.1", "Kubernetes sets for a service called jaxnn-serve"),
    ],
)
def test_each_mistake_in_the_environment_is_one_sentence(
    variable: str, text: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        base(Every, [], {PREFIX + variable: text})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"), [("TRUE", True), ("on", True), ("1", True), ("no", False), ("0", False)]
)
def test_truth_has_several_words(text: str, value: bool) -> None:
    assert from_environment(Every, {"JAXNN_SERVE_LOUD": text}) == {"loud": value}


def test_sentences_are_those_under_the_fields() -> None:
    told = sentences(Every)
    assert list(told) == [field.name for field in dataclasses.fields(Every)]
    assert (told["count"], told["part"]) == ("How many.", "How much, on two lines.")

    @dataclass
    class Silent:
        told: int = 1
        """Something."""
        untold: int = 2

    assert sentences(Silent) == {"told": "Something."}


def test_the_table_has_a_line_for_each_setting() -> None:
    lines = table(Every).splitlines()[2:]
    assert lines[0] == "| `--count` | `JAXNN_SERVE_COUNT` | `3` | How many. |"
    assert lines[2] == "| `--loud` | `JAXNN_SERVE_LOUD` | `false` | Whether \\| loudly. |"
    assert lines[3] == "| `--no-quiet` | `JAXNN_SERVE_QUIET` | `true` | Whether quietly. |"
    assert lines[4] == "| `--name` | `JAXNN_SERVE_NAME` | `x` | Who. |"
    assert lines[5] == "| `--file` | `JAXNN_SERVE_FILE` | none | Where. |"
    assert len(lines) == len(dataclasses.fields(Every))


def test_the_flags_of_the_table_are_those_of_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(ServiceConfig, args=["--help"], config=(tyro.conf.FlagCreatePairsOff,))
    flags = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
    written = {line.split("`")[1] for line in table(ServiceConfig).splitlines()[2:]}
    assert written == flags - {"--help"}


def test_every_setting_of_the_service_says_what_it_sets() -> None:
    told = sentences(ServiceConfig)
    for field in dataclasses.fields(ServiceConfig):
        assert told.get(field.name, "").endswith("."), field.name


def test_every_line_that_is_printed_is_toml_under_its_sentence() -> None:
    text = printed(ServiceConfig())
    assert list(tomllib.loads(text)) == list(hints(ServiceConfig))
    for name, sentence in sentences(ServiceConfig).items():
        assert f"\n# {sentence}\n{name} = " in text


def tables(page: Path, *arguments: str) -> tuple[int, str]:
    """Runs the script that writes the page's tables."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "settings_table.py", "--page", page, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
    )
    return done.returncode, done.stderr


def test_a_page_that_has_drifted_is_noticed_and_mended(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Top\n<!-- settings -->\nold\n<!-- end of settings -->\nmiddle\n"
        "<!-- metrics -->\n<!-- end of metrics -->\nend\n"
    )
    code, said = tables(page, "--check")
    assert (code, "out of date" in said) == (1, True)
    assert tables(page)[0] == 0
    assert tables(page, "--check")[0] == 0
    text = page.read_text()
    assert text.startswith("# Top\n<!-- settings -->\n\n| Flag |")
    assert "JAXNN_SERVE_PORT" in text
    assert "jaxnn_requests_total" in text
    assert "\nold\n" not in text
    assert "\nmiddle\n" in text
    assert text.endswith("\nend\n")
    page.write_text(text.replace("<!-- end of metrics -->", ""))
    code, said = tables(page, "--check")
    assert (code, "the page has no lines <!-- metrics -->" in said) == (1, True)


@pytest.mark.skipif(not PAGE.exists(), reason="docs/serving.md is not written yet")
def test_the_page_of_the_service_is_up_to_date() -> None:
    assert tables(PAGE, "--check") == (0, "")
