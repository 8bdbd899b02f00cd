"""The models that are served now, and how they change while requests go on.

A new version is read, compiled and proven aside, in a thread; then one assignment puts it in its
place. Requests hold the model that they began with, so that those in flight end on the old one. A
version that fails is told of, and whatever served before goes on serving.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

from jaxnn.errors import CheckpointError, JaxnnError
from jaxnn.ready_made import path_of
from service.config import ServiceConfig
from service.errors import NoSuchModel
from service.parameters import shown
from service.repository import Found, ServedModel, found_file, found_in, load_model

_log = logging.getLogger(__name__)

Loader = Callable[[Found], ServedModel]
OnLoad = Callable[[str, ServedModel | None, str], None]  # name, model, problem or nothing


class Entry(NamedTuple):
    """One version of a model that the server knows of."""

    name: str
    version: str
    state: str  # "READY", "LOADING", "UNLOADING" or "UNAVAILABLE"
    reason: str  # what is wrong with it, or with its file; one sentence
    preferred: bool  # requests that name no version go here
    model: ServedModel | None  # where it is READY


class _Slot(NamedTuple):
    """What became of one file."""

    found: Found
    state: str
    reason: str = ""
    model: ServedModel | None = None


class Registry:
    """All models by name and version; changes only on its event loop, one change at a time."""

    def __init__(self, config: ServiceConfig, load: Loader | None = None) -> None:
        """Know of nothing yet: `refresh` looks; `load` reads one file, in place of our own way."""
        self._config = config
        self._canaries = config.canaries()
        self._load = load or self._read
        self._lock = asyncio.Lock()
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._unloaded: set[str] = set()  # by request, until asked for again
        # Replaced, never changed: whoever reads it sees one state or the next.
        self._ready: dict[str, dict[str, ServedModel]] = {}
        self._preferred: dict[str, ServedModel] = {}
        self.on_change: list[Callable[[], None]] = []  # after each swap
        self.on_load: list[OnLoad] = []

    def choose(self, name: str, version: str = "") -> ServedModel:
        """The model that is to answer a request.

        Args:
          name: empty for the default model.
          version: empty for the preferred one, or now and then a canary.

        Raises:
          NoSuchModel: none of that name or version is ready.
        """
        if not name:
            name = self._config.name
            if name not in self._ready and len(self._ready) == 1:
                (name,) = self._ready
        versions = self._ready.get(name)
        if versions is None:
            raise NoSuchModel(
                f"no model {shown(name)} is ready: choose one of {_listed(sorted(self._ready))}"
            )
        if version:
            if version not in versions:
                raise NoSuchModel(
                    f"no version {shown(version)} of model {name!r} is ready: choose one of "
                    f"{_listed(versions)}, or none for the preferred one"
                )
            return versions[version]
        if self._canaries:
            lot = random.random()  # noqa: S311 - a lot, no secret
            for canary in self._canaries:
                if canary.name == name and canary.version in versions:
                    if lot < canary.share:
                        return versions[canary.version]
                    lot -= canary.share
        return self._preferred[name]

    def entries(self) -> list[Entry]:
        """Every version known of, by name and version."""
        preferred = set(map(id, self._preferred.values()))
        found = [
            Entry(
                slot.found.name,
                slot.model.version if slot.model else slot.found.version,
                slot.state,
                slot.reason,
                id(slot.model) in preferred,
                slot.model,
            )
            for slot in self._slots.values()
        ]
        return sorted(found, key=lambda entry: (entry.name, len(entry.version), entry.version))

    def count(self) -> int:
        """Versions that are ready; may be called from any thread."""
        return sum(map(len, self._ready.values()))

    def ready(self) -> dict[str, bool]:
        """Whether any version is ready of each model known of."""
        return {name: name in self._ready for name, _ in self._slots}

    async def refresh(self, name: str | None = None) -> None:
        """Looks at the files again, loads what is new or changed, and lets go what is not wanted.

        Args:
          name: look at this model only, and try again also what failed before.

        Raises:
          ConfigError: the repository cannot be read; all stays as it was.
        """
        # A caller that leaves must not leave a model half loaded.
        await asyncio.shield(asyncio.create_task(self._refresh(name)))

    async def _refresh(self, name: str | None) -> None:
        async with self._lock:
            files = await asyncio.to_thread(self._look)
            names = {one for one, _ in self._slots} | set(files) if name is None else {name}
            for one in sorted(names):
                wanted = [] if one in self._unloaded else files.get(one, [])
                await self._update(one, wanted, again=name is not None)

    async def load(self, name: str) -> None:
        """Serves a model that was unloaded, or looks at its files again.

        Raises:
          NoSuchModel: no such model is in the repository.
          CheckpointError, ConfigError: its newest file cannot be served.
        """
        self._unloaded.discard(name)
        await self.refresh(name)
        mine = [slot for (one, _), slot in self._slots.items() if one == name]
        if not mine:
            raise NoSuchModel(f"no model {name!r} is in the repository: add NAME/VERSION/ first")
        newest = max(mine, key=lambda slot: slot.found.number)
        if newest.reason:
            raise CheckpointError(newest.reason)

    async def unload(self, name: str) -> None:
        """Lets a model go until it is loaded again; requests in flight end on it.

        Raises:
          NoSuchModel: it is not there.
        """
        if not any(one == name for one, _ in self._slots):
            raise NoSuchModel(
                f"no model {name!r} is served: choose one of {_listed(sorted(self._ready))}"
            )
        self._unloaded.add(name)
        await self.refresh(name)

    async def watch(self) -> None:
        """Refreshes every `watch_s` seconds, for ever."""
        while True:
            await asyncio.sleep(self._config.watch_s)
            try:
                await self.refresh()
            except JaxnnError as error:
                _log.error("%s", error)

    def _look(self) -> dict[str, list[Found]]:
        if self._config.repository:
            return found_in(self._config.repository)
        file = found_file(path_of(self._config.model), self._config.name)
        return {file.name: [file]}

    def _read(self, found: Found) -> ServedModel:
        return load_model(found.path, found.name, found.version, proof=self._config.proof)

    def _loaded(self, found: Found) -> ServedModel:
        if found.problem:
            raise CheckpointError(found.problem)
        return self._load(found)

    async def _update(self, name: str, files: list[Found], again: bool) -> None:
        """Brings one model to what the files and the policy say."""
        kept: dict[tuple[str, str], _Slot] = {}
        canaries = {canary.version for canary in self._canaries if canary.name == name}
        kind, _, rest = self._config.versions.partition(":")
        room = int(rest) if kind == "latest" else len(files)
        for file in reversed(files):  # from the newest: one that fails leaves its place to an older
            canary = file.version in canaries
            named = kind != "named" or file.version in rest.split(",")
            if file.number and not canary and not (room > 0 and named):
                continue  # what is no version is no matter of policy: it is told of
            slot = kept[name, file.version] = await self._slot(file, again)
            room -= not canary and slot.model is not None
        others = {key: slot for key, slot in self._slots.items() if key[0] != name}
        gone = self._slots.keys() - others.keys() - kept.keys()
        for key in (key for key in gone if self._slots[key].model):
            _log.info("model %s version %s is served no longer", *key)
        self._swap({**others, **kept})

    async def _slot(self, file: Found, again: bool) -> _Slot:
        """One file, loaded where it is new or has changed."""
        key = file.name, file.version
        before = self._slots.get(key)
        well = before and before.model and not before.reason
        if before and before.found.signature == file.signature and (well or not again):
            return before  # also one that failed: it is still the same file
        old = before.model if before else None
        if not old:
            self._slots = {**self._slots, key: _Slot(file, "LOADING")}
        try:
            model = await asyncio.to_thread(self._loaded, file)
        except Exception as error:  # a bad file must not end the server, whatever is wrong with it
            known = isinstance(error, JaxnnError)
            reason = str(error) if known else f"{file.path} cannot be served: the log says why"
            reason = reason.encode(errors="backslashreplace").decode()  # it is sent as UTF-8
            if not known:
                _log.error("%s", reason, exc_info=error)
            for heard in self.on_load:
                heard(file.name, None, reason)
            return _Slot(file, "READY" if old else "UNAVAILABLE", reason, old)
        for heard in self.on_load:
            heard(model.name, model, "")
        return _Slot(file, "READY", "", model)

    def _swap(self, slots: dict[tuple[str, str], _Slot]) -> None:
        """Puts a new state in place of the old."""
        ready: dict[str, dict[str, ServedModel]] = {}
        preferred: dict[str, ServedModel] = {}
        canaries = {(canary.name, canary.version) for canary in self._canaries}
        for (name, version), slot in sorted(slots.items(), key=lambda one: one[1].found.number):
            if slot.model:
                ready.setdefault(name, {})[slot.model.version] = slot.model
                if (name, version) not in canaries or name not in preferred:
                    preferred[name] = slot.model  # the newest that is no canary
        self._slots, self._ready, self._preferred = slots, ready, preferred
        for changed in self.on_change:
            changed()


def _listed(names: Iterable[str]) -> str:
    found = ", ".join(names) or "none, since none is ready"
    return found if len(found) <= 300 else found[:300] + " ..."  # a status has 8 kB
