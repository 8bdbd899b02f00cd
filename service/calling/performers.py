"""Perform the steps of `service.calling.steps`: in threads that wait, or on asyncio's loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent import futures
from typing import Any, TypeVar, cast

import grpc

from service.calling.steps import Call, Emit, Pull, Pulled, Sleep, Start, Step, Steps, Wait

THREADS = 32  # of one blocking client, for what is under way together
T = TypeVar("T")


class Threads:
    """Waits in the caller's thread; what is started has threads of its own."""

    def __init__(self, call: Callable[[Call], Any]) -> None:
        """Take how a call is made: it returns the reply or raises RpcError."""
        self._call = call
        self._pool = futures.ThreadPoolExecutor(THREADS)  # starts a thread when there is work

    def run(self, steps: Steps[T]) -> T:
        """Perform steps to their end."""
        result = None
        try:
            while True:
                result = self._perform(steps.send(result))
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

    def stream(self, steps: Steps[None], source: Iterator[Any]) -> Iterator[Any]:
        """Perform steps that pull from a source; what they emit."""
        result = None
        try:
            while True:
                step = steps.send(result)
                result = None
                if isinstance(step, Emit):
                    yield step.value
                elif isinstance(step, Pull):
                    result = _pulled(source)
                else:
                    result = self._perform(step)
        except StopIteration:
            return
        finally:
            steps.close()

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Call):
            try:
                return self._call(step)
            except grpc.RpcError as error:
                return error
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        if isinstance(step, Start):
            return self._pool.submit(self.run, step.steps)
        return futures.wait(cast(Wait, step).handles, return_when=futures.FIRST_COMPLETED)


class Loop:
    """Awaits on the running event loop; what is started is a task."""

    def __init__(self, call: Callable[[Call], Awaitable[Any]]) -> None:
        """Take how a call is made: to be awaited, for the reply or RpcError."""
        self._call = call

    async def run(self, steps: Steps[T]) -> T:
        """Perform steps to their end."""
        result = None
        try:
            while True:
                result = await self._perform(steps.send(result))
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

    async def stream(self, steps: Steps[None], source: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Perform steps that pull from a source; what they emit."""
        result = None
        try:
            while True:
                step = steps.send(result)
                result = None
                if isinstance(step, Emit):
                    yield step.value
                elif isinstance(step, Pull):
                    result = asyncio.ensure_future(_next(source))
                else:
                    result = await self._perform(step)
        except StopIteration:
            return
        finally:
            steps.close()

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Call):
            try:
                return await self._call(step)
            except grpc.RpcError as error:
                return error
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Start):
            return asyncio.ensure_future(self.run(step.steps))
        return await asyncio.wait(cast(Wait, step).handles, return_when=asyncio.FIRST_COMPLETED)


def _pulled(source: Iterator[Any]) -> futures.Future[Pulled]:
    """The next item, read now."""
    handle: futures.Future[Pulled] = futures.Future()
    try:
        handle.set_result(Pulled(next(source)))
    except StopIteration:
        handle.set_result(Pulled(None, ended=True))
    except Exception as error:  # raised again when its turn comes
        handle.set_exception(error)
    return handle


async def _next(source: AsyncIterator[Any]) -> Pulled:
    try:
        return Pulled(await anext(source))
    except StopAsyncIteration:
        return Pulled(None, ended=True)
