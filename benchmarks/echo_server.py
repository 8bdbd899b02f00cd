"""A bare grpcio echo: what any server over grpc.aio could reach at most.

    python -m benchmarks.echo_server --pair REQUEST REPLY [--pair ...] [--keep-memory]
                                     [--processes N]

Every method takes bytes and answers bytes, and nothing is parsed or computed. A request is
answered with the reply that the real server gave to a request of that length, so that both carry
the same bytes both ways; for a request of another length the echo sends it back.

--keep-memory raises malloc's thresholds, so that the memory of a large message is kept for the
next one; the better of both ways is what a server has to be compared with.
"""

import argparse
import asyncio
import ctypes
import multiprocessing
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import grpc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
KEEP_BYTES = 2**30
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 1),
]
Answer = Callable[[bytes], bytes]


class _Handler(grpc.GenericRpcHandler):
    """The same answer to every method."""

    def __init__(self, answer: Answer) -> None:
        async def call(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return answer(data)

        self._handler = grpc.unary_unary_rpc_method_handler(call)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._handler


async def listen(answer: Answer, port: int, said: Callable[[], object]) -> None:
    """Answers until SIGTERM; `said` is called when the server listens."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((_Handler(answer),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    said()
    await stop.wait()
    await server.stop(None)


def serve(make: Callable[[], Answer], processes: int) -> None:
    """Serves from one event loop, uvloop's where it is installed, or from several processes.

    Args:
      make: gives the answer to a request; called in each process.
      processes: how many; the kernel deals connections out to them.
    """
    with socket.socket() as place:  # keeps the port free for the processes that will share it
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        ready = context.Semaphore(0)
        children = [
            context.Process(target=_child, args=(make, port, ready), daemon=True)
            for _ in range(processes - 1)
        ]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # ends the children too
        for child in children:
            child.start()
        for _ in children:
            ready.acquire()
        _serve(make, port, lambda: print(f"listening on 127.0.0.1:{port}", flush=True))


def _child(make: Callable[[], Answer], port: int, ready: Semaphore) -> None:
    _serve(make, port, ready.release)


def _serve(make: Callable[[], Answer], port: int, said: Callable[[], object]) -> None:
    try:
        from uvloop import new_event_loop
    except ImportError:
        from asyncio import new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(listen(make(), port, said))


def echo(pairs: list[tuple[Path, Path]], keep_memory: bool) -> Answer:
    """The replies by the length of their requests."""
    if keep_memory:
        libc = ctypes.CDLL(None)
        for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(name, KEEP_BYTES)
    replies = {request.stat().st_size: reply.read_bytes() for request, reply in pairs}
    return lambda data: replies.get(len(data), data)


def main() -> None:
    """Reads the flags and serves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pair", nargs=2, type=Path, action="append", default=[])
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    pairs = [(request, reply) for request, reply in options.pair]
    serve(partial(echo, pairs, options.keep_memory), options.processes)


if __name__ == "__main__":
    main()
