"""Models that come, change, fail and go while others serve."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from serving import LIMIT_S, stub_model

from jaxnn.errors import CheckpointError, ConfigError
from service.config import ServiceConfig
from service.errors import NoSuchModel
from service.registry import Registry
from service.repository import Found, ServedModel


def put(folder: Path, name: str, version: int | str, text: str = "good") -> Path:
    """A file that stands for a model: "good" can be read, anything else is a problem."""
    path = folder / name / str(version) / "model.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name("aside")
    aside.write_text(text)
    aside.replace(path)  # a new inode: changed even within the clock's tick
    return path


def read(found: Found) -> ServedModel:
    text = found.path.read_text()
    if not text.startswith("good"):
        raise CheckpointError(f"{found.path} is {text}")
    return stub_model(name=found.name, version=found.version)


def run(
    folder: Path,
    scenario: Callable[[Registry], Awaitable[None]],
    load: Callable[[Found], ServedModel] = read,
    **settings: Any,
) -> None:
    async def main() -> None:
        registry = Registry(ServiceConfig(repository=folder, **settings), load)
        async with asyncio.timeout(LIMIT_S):
            await registry.refresh()
            await scenario(registry)

    asyncio.run(main())


def states(registry: Registry) -> dict[tuple[str, str], str]:
    return {(entry.name, entry.version): entry.state for entry in registry.entries()}


def versions(registry: Registry, name: str = "digits") -> set[str]:
    return {entry.version for entry in registry.entries() if entry.name == name and entry.model}


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("latest:1", {"10"}),
        ("latest:2", {"9", "10"}),
        ("latest:9", {"1", "9", "10"}),
        ("all", {"1", "9", "10"}),
        ("named:1,9", {"1", "9"}),
    ],
)
def test_the_policy_says_which_versions_are_served(
    tmp_path: Path, policy: str, served: set[str]
) -> None:
    for version in (9, 10, 1):
        put(tmp_path, "digits", version)
    put(tmp_path, "digits", ".draft")
    put(tmp_path, ".hidden", 1)

    async def scenario(registry: Registry) -> None:
        assert versions(registry) == served
        assert len(registry.entries()) == len(served)
        assert registry.ready() == {"digits": True}
        newest = max(served, key=int)
        assert registry.choose("digits").version == newest
        assert [entry.version for entry in registry.entries() if entry.preferred] == [newest]

    run(tmp_path, scenario, versions=policy)


def test_the_default_model_and_what_is_not_there(tmp_path: Path) -> None:
    put(tmp_path, "letters", 3)

    async def scenario(registry: Registry) -> None:
        assert registry.choose("").name == "letters"  # the only one
        put(tmp_path, "clothes", 1)
        await registry.refresh()
        with pytest.raises(
            NoSuchModel, match=r"no model 'digits' is ready: choose one of clothes, "
        ):
            registry.choose("")
        put(tmp_path, "digits", 1)
        await registry.refresh()
        assert registry.choose("").name == "digits"  # by the setting `name`
        with pytest.raises(NoSuchModel, match=r"no version '4' of model 'letters'.*one of 3"):
            registry.choose("letters", "4")

    run(tmp_path, scenario)


def test_a_new_version_takes_over_and_the_old_one_is_let_go(tmp_path: Path) -> None:
    put(tmp_path, "digits", 1)

    async def scenario(registry: Registry) -> None:
        old = registry.choose("digits")
        seen: list[set[str]] = []
        registry.on_change.append(lambda: seen.append(versions(registry)))
        put(tmp_path, "digits", 2)
        await registry.refresh()
        assert registry.choose("digits").version == "2"
        assert versions(registry) == {"2"}
        assert seen == [{"2"}]  # in one step
        assert old.version == "1"  # who holds it keeps it
        await registry.refresh()
        assert registry.choose("digits") is registry.choose("digits", "2")

    run(tmp_path, scenario)


def test_a_bad_new_version_leaves_the_old_one_serving_and_is_told_of(tmp_path: Path) -> None:
    put(tmp_path, "digits", 1)
    loads: list[tuple[str, str | None, bool]] = []

    async def scenario(registry: Registry) -> None:
        registry.on_load.append(
            lambda name, model, problem: loads.append(
                (name, model and model.version, bool(problem))
            )
        )
        path = put(tmp_path, "digits", 2, "half written")
        await registry.refresh()
        await registry.refresh()  # the same bad file is not tried again
        assert registry.choose("digits").version == "1"
        assert states(registry) == {("digits", "1"): "READY", ("digits", "2"): "UNAVAILABLE"}
        (bad,) = [entry for entry in registry.entries() if entry.reason]
        assert bad.reason == f"{path} is half written"
        put(tmp_path, "digits", 2, "good at last")
        await registry.refresh()
        assert versions(registry) == {"2"}
        assert loads == [("digits", None, True), ("digits", "2", False)]

    run(tmp_path, scenario)


def test_a_start_with_a_bad_newest_version_falls_back_to_an_older_one(tmp_path: Path) -> None:
    put(tmp_path, "digits", 1)
    put(tmp_path, "digits", 2)
    put(tmp_path, "digits", 3, "damaged")

    async def scenario(registry: Registry) -> None:
        assert versions(registry) == {"2"}

    run(tmp_path, scenario)


def test_a_served_file_that_turns_bad_goes_on_serving_as_it_was(tmp_path: Path) -> None:
    path = put(tmp_path, "digits", 1)

    async def scenario(registry: Registry) -> None:
        before = registry.choose("digits")
        put(tmp_path, "digits", 1, "damaged")
        await registry.refresh()
        assert registry.choose("digits") is before
        (entry,) = registry.entries()
        assert (entry.state, entry.reason) == ("READY", f"{path} is damaged")
        with pytest.raises(CheckpointError, match="is damaged"):
            await registry.load("digits")
        put(tmp_path, "digits", 1, "good again")
        await registry.refresh()
        assert registry.choose("digits") is not before
        assert not registry.entries()[0].reason

    run(tmp_path, scenario)


def test_an_unexpected_failure_is_no_ones_secret_but_the_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(found: Found) -> ServedModel:
        raise ZeroDivisionError("inner workings")

    path = put(tmp_path, "digits", 1)

    async def scenario(registry: Registry) -> None:
        (entry,) = registry.entries()
        assert entry.reason == f"{path} cannot be served: the log says why"
        assert "inner workings" in caplog.text

    run(tmp_path, scenario, broken)


def test_two_files_in_a_version_are_one_too_many(tmp_path: Path) -> None:
    path = put(tmp_path, "digits", 1)
    (path.parent / "other.safetensors").write_text("good")

    async def scenario(registry: Registry) -> None:
        assert not registry.ready()["digits"]
        assert "holds several model files, expected one" in registry.entries()[0].reason

    run(tmp_path, scenario)


def test_what_lies_in_the_wrong_place_is_told_of_once(tmp_path: Path) -> None:
    put(tmp_path, "digits", 1)
    strays = {
        ("digits", "v3"): put(tmp_path, "digits", "v3").parent,
        ("digits", "04"): put(tmp_path, "digits", "04").parent,
        ("digits", "2"): tmp_path / "digits" / "2",
        ("letters", "of.safetensors"): tmp_path / "letters" / "of.safetensors",
        ("my model", "1"): put(tmp_path, "my model", 1).parents[1],
        ("caf\\udce9", "1"): put(tmp_path, "caf\udce9", 1).parents[1],  # é, but not as UTF-8
    }
    (tmp_path / "digits" / "2").mkdir()
    (tmp_path / "digits" / "notes").mkdir()
    (tmp_path / "letters").mkdir()
    strays["letters", "of.safetensors"].write_text("good")
    told: list[str] = []

    async def scenario(registry: Registry) -> None:
        registry.on_load.append(lambda *heard: told.append(heard[2]))
        assert states(registry) == {("digits", "1"): "READY"} | dict.fromkeys(strays, "UNAVAILABLE")
        found = {(entry.name, entry.version): entry.reason for entry in registry.entries()}
        for key, path in strays.items():
            assert found[key].encode().startswith(f"{path} ".encode(errors="backslashreplace"))
        assert "3 is no version" in found["digits", "v3"]
        assert "holds no model file" in found["digits", "2"]
        assert "move it to" in found["letters", "of.safetensors"]
        assert "is no model's name" in found["my model", "1"]
        await registry.refresh()
        assert not told  # again
        with pytest.raises(CheckpointError, match="holds no model file"):
            await registry.load("digits")
        put(tmp_path, "digits", 2)
        told.clear()
        await registry.refresh()
        assert (registry.choose("digits").version, told) == ("2", [""])
        await registry.load("digits")  # the one that is no version does not stand in its way

    run(tmp_path, scenario)


def test_unload_holds_until_load(tmp_path: Path) -> None:
    put(tmp_path, "digits", 1)

    async def scenario(registry: Registry) -> None:
        await registry.unload("digits")
        await registry.refresh()
        with pytest.raises(NoSuchModel):
            registry.choose("digits")
        with pytest.raises(NoSuchModel):
            await registry.unload("digits")
        await registry.load("digits")
        assert registry.choose("digits").version == "1"
        with pytest.raises(NoSuchModel, match="no model 'letters' is in the repository"):
            await registry.load("letters")

    run(tmp_path, scenario)


def test_a_repository_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    put(folder, "digits", 1)

    async def scenario(registry: Registry) -> None:
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(ConfigError, match="is no folder"):
            await registry.refresh()
        assert registry.choose("digits").version == "1"

    run(folder, scenario)


def test_a_canary_gets_its_share_and_is_not_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "digits", 1)
    put(tmp_path, "digits", 2)
    lots = iter([0.0, 0.049, 0.051, 0.99])
    monkeypatch.setattr("random.random", lambda: next(lots))

    async def scenario(registry: Registry) -> None:
        assert versions(registry) == {"1", "2"}  # latest:1 of the others, and the canary
        assert [registry.choose("digits").version for _ in range(4)] == ["2", "2", "1", "1"]
        assert registry.choose("digits", "2").version == "2"
        assert [entry.version for entry in registry.entries() if entry.preferred] == ["1"]

    run(tmp_path, scenario, canary=("digits=2:5%",))


def test_watching_finds_what_changed(tmp_path: Path) -> None:
    put(tmp_path, "digits", 1)

    async def scenario(registry: Registry) -> None:
        changed = asyncio.Event()
        registry.on_change.append(changed.set)
        watching = asyncio.create_task(registry.watch())
        put(tmp_path, "digits", 2)
        while registry.choose("digits").version != "2":
            changed.clear()
            await changed.wait()
        watching.cancel()

    run(tmp_path, scenario, watch_s=0.01)


def test_the_single_file_is_loaded_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "my.safetensors"
    path.write_text("good")

    async def main() -> None:
        registry = Registry(ServiceConfig(model=path, name="mine"), read)
        await registry.refresh()
        before = registry.choose("")
        assert before.name == "mine"
        os.utime(path, ns=(1, 1))
        await registry.refresh()
        assert registry.choose("mine") is not before

    asyncio.run(main())


@pytest.mark.parametrize(
    "canary", ["digits", "digits=1", "digits=1:5", "=1:5%", "digits=1:101%", "digits=1:-5%"]
)
def test_a_canary_that_cannot_be_read_is_refused(canary: str) -> None:
    with pytest.raises(ConfigError, match="canary is"):
        ServiceConfig(canary=(canary,))


def test_canaries_over_the_whole_are_refused() -> None:
    with pytest.raises(ConfigError, match="over 100 %"):
        ServiceConfig(canary=("digits=1:60%", "digits=2:60%"))
