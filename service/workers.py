"""Several processes behind one port, started again when they end.

Each worker listens on the same port (SO_REUSEPORT: the kernel deals out the connections) and
holds all the models. The supervisor serves nothing but the metrics page: it starts the workers,
never by fork, since gRPC and JAX do not survive one; passes signals on; and starts again, after
a growing pause, whichever ends.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace

from jaxnn.errors import ConfigError, RunError
from service import settings
from service.config import ServiceConfig, address
from service.listener import bound
from service.metrics_page import MetricsPage, Snapshot, added, ended

PROGRAM = "from service.worker import main; sys.exit(main())"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
SETTLED_S = 60.0  # after a life so long, the next pause is the first again
ANSWER_S = 1.0  # for a worker to say what it has counted
LINE_BYTES = 64 * 2**20  # the longest that a worker may say

_log = logging.getLogger(__name__)


def supervise(config: ServiceConfig) -> None:
    """Serves until SIGTERM or SIGINT with `config.workers` processes, as `service.server.serve`.

    Raises:
      RunError: the address cannot be listened on, or a worker ends before it serves.
      ConfigError: the workers cannot serve with these settings or models.
    """
    asyncio.run(_Supervisor(config).run())


class _Worker:
    """One process; it speaks in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready = asyncio.Event()  # and stays so
        self.problem = ""  # why it could not start
        self.counts = added([])
        self._asked: asyncio.Future[None] | None = None
        self._look_again = False

    @property
    def serves(self) -> bool:
        return self.ready.is_set() and self.process.returncode is None

    async def listen(self) -> None:
        """Takes what it says until it ends."""
        assert self.process.stdout  # noqa: S101 - for the type checker
        while (line := await self.process.stdout.readline()).endswith(b"\n"):  # else cut by a kill
            said = json.loads(line)
            self.problem = said.get("problem", self.problem)
            if "ready" in said:
                self.ready.set()
                if self._look_again:
                    self.look_again()
            if "counts" in said:
                self.counts = said["counts"]
                self._answered()
        await self.process.wait()
        self._answered()

    async def ask(self) -> None:
        """Brings `counts` up to date, if it answers."""
        if not self.serves:
            return
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().create_future()
            assert self.process.stdin  # noqa: S101
            self.process.stdin.write(b"counts\n")
        await asyncio.wait([self._asked], timeout=ANSWER_S)

    def _answered(self) -> None:
        if self._asked and not self._asked.done():
            self._asked.set_result(None)

    def look_again(self) -> None:
        """Looks for what has changed: when it is ready, since a SIGHUP before that would end it."""
        if self.serves:
            self.process.send_signal(signal.SIGHUP)
        else:
            self._look_again = True

    def end(self, number: signal.Signals) -> None:
        """Sends it SIGTERM or SIGKILL."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    def ending(self) -> str:
        """How it ended."""
        code = self.process.returncode or 0
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class _Supervisor:
    """The workers of one server."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self._workers: list[_Worker] = []
        self._past = added([])  # what workers had counted that have ended
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_change)
        # Alone first, so that another server's port is not joined by mistake; then kept, so that it
        # stays ours while no worker is there.
        with bound(replace(self._config, workers=1)) as alone:
            port = alone.getsockname()[1]
        with bound(replace(self._config, port=port)):
            page = None
            if self._config.metrics_port is not None:

                def counts() -> Snapshot:
                    return asyncio.run_coroutine_threadsafe(self._counts(), loop).result(10)

                page = MetricsPage(counts, self._config.metrics_host, self._config.metrics_port)
                where = address(self._config.metrics_host, page.port)
                print(f"metrics on http://{where}/metrics", flush=True)
            try:
                await self._serve(replace(self._config, port=port, metrics_port=None))
            finally:
                self._stop.set()
                for worker in list(self._workers):
                    worker.end(signal.SIGKILL)
                    await worker.process.wait()
                if page:
                    page.stop()

    async def _serve(self, config: ServiceConfig) -> None:
        """Keeps the workers until they are to stop.

        Raises:
          ConfigError, RunError: one of them could not begin.
        """
        first = [await self._start(config) for _ in range(config.workers)]
        keeping = [asyncio.create_task(self._keep(worker, config)) for worker in first]
        telling = asyncio.create_task(_tell(first, address(config.host, config.port)))
        await asyncio.wait(keeping, return_when=asyncio.FIRST_COMPLETED)
        telling.cancel()
        if not self._stop.is_set():
            failed = next(worker for worker in first if worker.process.returncode is not None)
            kind = ConfigError if failed.process.returncode == ConfigError.exit_code else RunError
            raise kind(failed.problem or f"a worker ended with {failed.ending()} before it served")
        await asyncio.gather(*keeping)

    async def _start(self, config: ServiceConfig) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            # With the modules of this process, whatever lies in the folder it was started in.
            *(sys.executable, "-c", f"import sys; sys.path[:] = {sys.path}; {PROGRAM}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            start_new_session=True,  # Ctrl-C reaches a whole session: here one passes it on
        )
        assert process.stdin  # noqa: S101
        process.stdin.write(json.dumps(settings.printed(config)).encode() + b"\n")
        worker = _Worker(process)
        self._workers.append(worker)
        if self._stop.is_set():  # meanwhile
            worker.end(signal.SIGTERM)
        return worker

    async def _keep(self, worker: _Worker, config: ServiceConfig) -> None:
        """Starts another worker when one ends; returns at a stop, or if the first never served."""
        pause, served = FIRST_PAUSE_S, False
        while True:
            began = time.monotonic()
            await worker.listen()
            self._workers.remove(worker)
            self._past = added([self._past, ended(worker.counts)])
            served = served or worker.ready.is_set()
            if self._stop.is_set() or not served:
                return
            if time.monotonic() - began > SETTLED_S:
                pause = FIRST_PAUSE_S
            _log.error(
                "worker %d ended with %s%s: another starts in %g s",
                worker.process.pid,
                worker.ending(),
                f" ({worker.problem})" if worker.problem else "",
                pause,
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
                return
            pause = min(2 * pause, LONGEST_PAUSE_S)
            worker = await self._start(config)

    async def _counts(self) -> Snapshot:
        """What all workers have counted, those that have ended too."""
        await asyncio.gather(*(worker.ask() for worker in self._workers))
        counts = added([self._past, *(worker.counts for worker in self._workers)])
        counts["gauges"]["workers"] = sum(1 for worker in self._workers if worker.serves)
        return counts

    def _on_stop(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.end(signal.SIGKILL if self._stop.is_set() else signal.SIGTERM)
        if self._stop.is_set():
            os._exit(128 + number)
        self._stop.set()

    def _on_change(self) -> None:
        for worker in self._workers:
            worker.look_again()


async def _tell(workers: list[_Worker], where: str) -> None:
    """Says where they listen, when all do."""
    for worker in workers:
        await worker.ready.wait()
    print(f"listening on {where}", flush=True)
