"""The compilation cache: used when it can be, harmless when it cannot.

Every case is a process of its own that computes the same numbers through the cache: JAX opens its
cache once a process.
"""

import itertools
import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxnn import compile_cache

PROGRAM = """
import json, pathlib, sys, warnings
from jaxnn import compile_cache
{before}
compile_cache.enable({folder})
imported = "jax" in sys.modules
import jax, jax.numpy as jnp
hits, misses = [], []
count = {{"/jax/compilation_cache/cache_hits": hits,
          "/jax/compilation_cache/cache_misses": misses}}
jax.monitoring.register_event_listener(lambda name, **_: count.get(name, []).append(1))
{after}
x = jnp.arange(60, dtype=jnp.float32).reshape(6, 10)
total = jax.jit(lambda x: jnp.tanh(x @ x.T).sum() + jnp.exp(-x).mean())(x)
print(json.dumps({{"total": float(total).hex(), "hits": len(hits), "misses": len(misses),
                   "imported": imported, "folder": jax.config.jax_compilation_cache_dir}}))
"""


def compute(
    folder: Path | str | None,
    before: str = "",
    after: str = "",
    variables: dict[str, str] | None = None,
) -> dict:
    """What one process found; it must end well and say nothing on standard error."""
    argument = "" if folder is None else f"pathlib.Path({str(folder)!r})"
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX", "TF_CPP", "NPROC"))
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before, after=after, folder=argument)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, "JAX_PLATFORMS": "cpu", "NPROC": "1", **(variables or {})},
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def plain() -> dict:
    """Without any cache."""
    found = compute(None, variables={"JAXNN_CACHE": "off"})
    assert found["folder"] is None
    assert found["hits"] == found["misses"] == 0
    return found


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*-cache"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As in a process that has neither set nor imported anything; restored after the test."""
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    for name in (*names, "JAXNN_CACHE", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")  # noted even where it is not set, so that it goes back
        monkeypatch.delenv(name)
    monkeypatch.setattr(compile_cache, "sys", type("NoJax", (), {"modules": {}}))
    return monkeypatch


def enabled(folder: Path | None = None) -> Path | None:
    """The folder that JAX would be given."""
    with warnings.catch_warnings():
        compile_cache.enable(folder)
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(named) if named else None


def test_a_second_process_compiles_nothing_and_garbage_is_noticed(
    tmp_path: Path, plain: dict
) -> None:
    first = compute(tmp_path / "xla")
    assert first["misses"] == len(entries(tmp_path)) >= 3
    assert first["imported"] is False  # the environment was enough
    second = compute(tmp_path / "xla")
    assert (second["misses"], second["hits"]) == (0, first["misses"])
    assert first["total"] == second["total"] == plain["total"]  # to the last bit

    kinds = [b"garbage", b"", b"\x78\x9c" + bytes(100), compile_cache._ZSTD]
    for path, garbage in zip(entries(tmp_path), itertools.cycle(kinds)):
        path.write_bytes(garbage)
    third = compute(tmp_path / "xla")
    assert third["hits"] == 0
    assert third["total"] == plain["total"]
    assert all(path.stat().st_size > 200 for path in entries(tmp_path)[:3])  # replaced


def test_the_environment_names_the_folder(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("JAXNN_CACHE", str(tmp_path / "here"))
    found = enabled()
    assert found and found.parent == tmp_path / "here"


def test_it_can_be_turned_off(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("JAXNN_CACHE", "off")
    assert enabled() is None


def test_by_default_it_is_the_users_cache_directory(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    environment.setattr(compile_cache.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    found = enabled()
    assert found and found.parent == tmp_path / "xla"
    assert found.stat().st_mode & 0o077 == 0
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"  # the user's own stands


def test_it_can_be_enabled_after_the_import(tmp_path: Path, plain: dict) -> None:
    found = compute(tmp_path / "xla", before="import jax")
    assert found["imported"] is True
    assert found["misses"] == len(entries(tmp_path)) > 0
    assert found["total"] == plain["total"]


def test_the_users_own_choice_stands(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    assert enabled(tmp_path / "xla") == tmp_path / "own"
    assert not (tmp_path / "xla").exists()


@pytest.mark.parametrize("place", ["file", "file/under", "/proc/jaxnn", "~nobody-here/x", "a\0b"])
def test_a_folder_that_cannot_be_is_no_cache(
    tmp_path: Path, place: str, environment: pytest.MonkeyPatch
) -> None:
    if place.startswith("/proc") and sys.platform != "linux":
        pytest.skip("only Linux has /proc, where nobody can make a folder")
    (tmp_path / "file").write_text("not a folder")
    assert enabled(Path(place) if place[0] in "/~" else tmp_path / place) is None


def test_what_cannot_be_written_is_compiled(tmp_path: Path, plain: dict) -> None:
    # The tests may run as root, whom no mode of a folder stops.
    refuse = """
import errno
def refuse(path, *_):
    raise OSError(errno.EROFS, "refused", str(path))
pathlib.Path.write_bytes = refuse
pathlib.Path.touch = refuse
"""
    found = compute(tmp_path / "xla", before=refuse)
    assert Path(found["folder"]).parent == tmp_path / "xla"
    assert found["total"] == plain["total"]
    assert not entries(tmp_path)


def test_a_disk_that_fills_up_leaves_nothing_that_stays_broken(tmp_path: Path, plain: dict) -> None:
    resource = pytest.importorskip("resource", reason="only where files can be kept short")
    assert resource
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    assert compute(tmp_path / "xla", after=full)["total"] == plain["total"]
    halves = {path.name: path.stat().st_size for path in entries(tmp_path)}
    assert set(halves.values()) == {1000}
    mended = compute(tmp_path / "xla")
    assert mended["misses"] == len(halves)
    assert mended["total"] == plain["total"]
    assert all(path.stat().st_size > 1000 for path in entries(tmp_path))


def test_several_processes_at_once(tmp_path: Path, plain: dict) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(compute, [tmp_path / "xla"] * 3))
    assert {one["total"] for one in found} == {plain["total"]}
    assert entries(tmp_path)
    assert all(compile_cache._whole(path.read_bytes()) for path in entries(tmp_path))


def test_it_may_vanish_at_any_time(tmp_path: Path, plain: dict) -> None:
    gone = f"import shutil; shutil.rmtree({str(tmp_path)!r})"
    assert compute(tmp_path / "xla", after=gone)["total"] == plain["total"]


def test_the_number_of_threads_keeps_a_cache_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPROC", "1")
    one = compile_cache._machine()
    assert one == compile_cache._machine()
    monkeypatch.setenv("NPROC", "2")
    assert compile_cache._machine() != one


def test_the_oldest_go_when_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "LIMIT", 35)
    for age in range(5):
        path = tmp_path / f"{age}-cache"
        path.write_bytes(compile_cache._ZSTD + bytes(6))
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "notes.txt").write_text("not an entry")
    compile_cache._tidy(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["0-cache", "1-cache", "2-cache", "checked", "notes.txt"]
