"""What every call goes through, whatever API it is of and whatever carries it.

The gate, the caller's token, the handler; then the status, the metrics, the log and the trace.
"""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator
from functools import partial

from jaxnn.errors import JaxnnError
from service.access_log import AccessLog
from service.errors import Overloaded, Stopping, Unauthenticated
from service.gate import Gate
from service.rpc import Api, Call, Method, Route, Wire
from service.security import Tokens
from service.status import Refused, Status, status_of
from service.telemetry import Telemetry
from service.tracing import Tracing

_CANCELLED = Status("CANCELLED", "the caller is gone")


class Edge:
    """Runs calls; the parts that are None are left out."""

    def __init__(
        self,
        gate: Gate,
        telemetry: Telemetry,
        log: AccessLog | None = None,
        tokens: Tokens | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Hold the parts."""
        self._gate = gate
        self._telemetry = telemetry
        self._log = log
        self._tokens = tokens
        self._tracing = tracing

    def routes(self, api: Api) -> dict[str, Route]:
        """What a transport is to run, by path."""
        return {
            f"/{api.service}/{method.name}": Route(
                partial(self.stream if method.stream else self.unary, api, method), method.stream
            )
            for method in api.methods
        }

    async def unary(self, api: Api, method: Method, data: bytes, wire: Wire) -> bytes:
        """One request to its answer.

        Raises:
          Refused: with the status that the caller is to get.
        """
        call = Call(api.short, method.name, wire)
        self._enter(call)
        try:
            return await self._answer(method, data, call)
        except Exception as error:
            raise self._refused(call, error) from None
        except asyncio.CancelledError:
            self._finished(call, _CANCELLED)
            raise
        finally:
            self._gate.leave()

    async def stream(
        self, api: Api, method: Method, messages: AsyncIterable[bytes], wire: Wire
    ) -> AsyncIterator[bytes]:
        """Requests to their answers, one after the other.

        Raises:
          Refused: at the first request that ends the stream.
        """
        opened, index = Call(api.short, method.name, wire), 0
        call = opened
        self._enter(call)
        try:
            if self._tokens:  # who has none may not hold a stream open, either
                call.caller = self._tokens.authorise(call, method.control).name
            async for data in self._arriving(messages):
                call = Call(api.short, method.name, wire)
                try:
                    self._gate.check()
                    answer = await self._answer(method, data, call)
                except Exception as error:
                    refused = self._refused(call, error)
                    status = refused.status
                    told = None
                    if method.on_error and not isinstance(error, Unauthenticated):
                        told = method.on_error(data, status.code, status.sentence, call)
                    if not told:
                        sentence = f"message {index}: {status.sentence}"
                        raise Refused(status._replace(sentence=sentence)) from None
                    answer = told
                yield answer
                index += 1
                call = opened  # how the wait for the next message ends is not how this one did
        except JaxnnError as error:
            raise self._refused(call, error) from None
        except asyncio.CancelledError:
            self._finished(call, _CANCELLED)
            raise
        finally:
            self._gate.leave()

    def _enter(self, call: Call) -> None:
        try:
            self._gate.enter()
        except JaxnnError as error:
            if isinstance(error, Overloaded):
                self._telemetry.count("refused", "calls")
            raise self._refused(call, error) from None

    async def _answer(self, method: Method, data: bytes, call: Call) -> bytes:
        if self._tokens:
            self._admit(method, call, self._tokens)
        answer = await method.handler(data, call)
        self._finished(call, None)
        return answer

    def _admit(self, method: Method, call: Call, tokens: Tokens) -> None:
        identity = tokens.authorise(call, method.control)
        call.caller, call.priority = identity.name, identity.priority

        def charge(images: int, requests: int = 0) -> None:
            try:
                tokens.charge(identity, images, time.monotonic(), requests)
            except Overloaded:
                self._telemetry.count("refused", "rate")
                raise

        call.charge = charge
        charge(0, requests=1)

    async def _arriving(self, messages: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """A stream's messages; a stop of the server ends the wait for the next.

        Raises:
          Stopping: the server stops while it waits.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        stopping = Stopping("the server is stopping: open the stream again")
        arriving = None  # gRPC's iterator complains if it is made and not used
        while True:
            if self._gate.closed:
                raise stopping
            arriving = arriving or aiter(messages)
            self._gate.idle(task, True)
            try:
                data = await anext(arriving, None)
            except asyncio.CancelledError:
                if not self._gate.closed:
                    raise
                task.uncancel()
                raise stopping from None
            finally:
                self._gate.idle(task, False)
            if data is None:
                return
            yield data

    def _refused(self, call: Call, error: Exception) -> Refused:
        status = status_of(error)
        self._finished(call, status)
        return Refused(status)

    def _finished(self, call: Call, status: Status | None) -> None:
        """Tells metrics and log how a call ended; None is well."""
        code = status.code if status else "OK"
        self._telemetry.finished(call, code)
        if self._tracing:
            self._tracing.finished(call, code)
        if self._log:
            self._log.finished(call, code, status.sentence if status else "")
