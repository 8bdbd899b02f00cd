"""One of several processes behind a port; `service.workers` starts it and reads what it says.

Its settings are the first line that it is sent; each later line asks what it has counted. It stops
as a server does, and also when nobody is left to send it anything.
"""

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import Any

from jaxnn import compile_cache
from jaxnn.errors import JaxnnError
from service import process, server, settings
from service.config import ServiceConfig


def main() -> int:
    """Serves; returns the exit code."""
    supervisor = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not stand between the lines
    try:
        config = settings.parsed(json.loads(sys.stdin.readline()))
        compile_cache.enable()
        process.prepare()
        process.run(_serve(config, supervisor))
    except JaxnnError as error:
        _say(supervisor, {"problem": str(error)})
        return error.exit_code
    return 0


async def _serve(config: ServiceConfig, supervisor: int) -> None:
    # Whoever stops all processes of a group stops it once, and the supervisor does so again.
    signals = process.Signals(hasty=False)
    async with server.running_server(config) as running:
        signals.serving(running.look_again)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        answering = asyncio.create_task(_answer(lines, running, signals.stop, supervisor))
        _say(supervisor, {"ready": running.port})
        await signals.stop.wait()
    answering.cancel()
    _say(supervisor, {"counts": running.telemetry.snapshot()})


async def _answer(
    lines: asyncio.StreamReader, running: server.Running, stop: asyncio.Event, supervisor: int
) -> None:
    while await lines.readline():
        _say(supervisor, {"counts": running.telemetry.snapshot()})
    stop.set()


def _say(supervisor: int, what: dict[str, Any]) -> None:
    line = json.dumps(what).encode() + b"\n"
    with suppress(BrokenPipeError):  # nobody is left to hear it
        while line:
            line = line[os.write(supervisor, line) :]


if __name__ == "__main__":
    sys.exit(main())
