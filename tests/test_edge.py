"""The edge and the gate through the seam: no network, no model."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from wires import Wire

from service import aio
from service.edge import Edge
from service.errors import InvalidRequest, Overloaded, Stopping
from service.gate import Gate
from service.rpc import Api, Call, Method
from service.security import Tokens
from service.status import RETRY_HINT, Refused
from service.telemetry import Telemetry
from service.token_file import digest


class Seen:
    """An edge of two methods, and what it told."""

    def __init__(self, answer: Callable[[bytes, Call], Awaitable[bytes]], **parts: Any) -> None:
        self.gate, self.telemetry = Gate(parts.pop("max_calls", 2)), Telemetry()
        self.edge = Edge(self.gate, self.telemetry, **parts)
        self.one = Method("One", answer)
        self.many = Method("Many", answer, stream=True, on_error=lambda data, *told: b"! " + data)
        self.strict = Method("Strict", answer, stream=True)
        self.api = Api("a.Service", "a", (self.one, self.many, self.strict))

    async def ask(self, data: bytes = b"x", wire: Wire | None = None) -> bytes:
        return await self.edge.unary(self.api, self.one, data, wire or Wire())

    def stream(self, messages: AsyncIterator[bytes], strict: bool = False) -> AsyncIterator[bytes]:
        return self.edge.stream(self.api, self.strict if strict else self.many, messages, Wire())

    def codes(self) -> list[str]:
        """How calls ended, in the order in which each way was first seen."""
        counters = self.telemetry.snapshot()["counters"]
        return [
            labels[4]
            for name, labels, value in counters
            if name == "requests"
            for _ in range(value)
        ]


async def echo(data: bytes, call: Call) -> bytes:
    if data == b"bad":
        raise InvalidRequest("this is bad")
    if data == b"broken":
        raise ZeroDivisionError("a secret")
    return data.upper()


async def each(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def refusal(asked: Awaitable[Any]) -> Refused:
    with pytest.raises(Refused) as refused:
        await asked
    return refused.value


def run(scenario: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_a_call_is_answered_refused_or_the_server_is_at_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        seen = Seen(echo)
        assert await seen.ask() == b"X"
        status = (await refusal(seen.ask(b"bad"))).status
        assert (status.code, status.sentence) == ("INVALID_ARGUMENT", "this is bad")
        status = (await refusal(seen.ask(b"broken"))).status
        assert status.code == "INTERNAL" and "secret" not in status.sentence
        assert seen.codes() == ["OK", "INVALID_ARGUMENT", "INTERNAL"]
        assert seen.gate.open_calls == 0

    run(scenario())
    assert "a secret" in caplog.text


def test_the_gate_counts_those_who_are_in() -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def wait(data: bytes, call: Call) -> bytes:
            await go.wait()
            return data

        seen = Seen(wait)
        inside = [asyncio.create_task(seen.ask()) for _ in range(2)]
        await asyncio.sleep(0)
        status = (await refusal(seen.ask())).status
        assert status.code == "RESOURCE_EXHAUSTED" and dict(status.trailing) == {RETRY_HINT: "100"}
        stream = seen.stream(each(b"a"))
        assert (await refusal(anext(stream))).status.code == "RESOURCE_EXHAUSTED"
        inside[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await inside[0]
        go.set()
        assert await inside[1] == b"x" and await seen.ask() == b"x"
        assert seen.gate.open_calls == 0
        assert sorted(seen.codes()) == ["CANCELLED", "OK", "OK"] + ["RESOURCE_EXHAUSTED"] * 2

    run(scenario())


def test_a_closed_gate_refuses_and_is_soon_quiet() -> None:
    async def scenario() -> None:
        seen = Seen(echo)
        await seen.gate.close()
        assert (await refusal(seen.ask())).status.code == "UNAVAILABLE"
        with pytest.raises(Stopping):
            seen.gate.enter()
        await seen.gate.emptied()

    run(scenario())


def test_a_stream_answers_in_order_and_goes_on_after_an_error_or_ends() -> None:
    async def scenario() -> None:
        seen = Seen(echo)
        messages = b"a", b"bad", b"c"
        assert [answer async for answer in seen.stream(each(*messages))] == [b"A", b"! bad", b"C"]
        strict = seen.stream(each(*messages), strict=True)
        assert await anext(strict) == b"A"
        status = (await refusal(anext(strict))).status
        assert status.sentence == "message 1: this is bad"
        assert sorted(seen.codes()) == ["INVALID_ARGUMENT"] * 2 + ["OK"] * 3
        assert seen.gate.open_calls == 0

    run(scenario())


def test_a_stop_ends_the_wait_of_a_stream_but_not_its_work() -> None:
    """Also of a stream that begins to wait only after the gate was closed."""

    async def scenario() -> None:
        go = asyncio.Event()

        async def wait(data: bytes, call: Call) -> bytes:
            call.model, call.version, call.batch_rows, call.rows = "m", "1", 5, 5
            if data == b"slow":
                await go.wait()
            return data

        async def endless(first: bytes) -> AsyncIterator[bytes]:
            yield first
            await asyncio.sleep(60)

        async def reading(stream: AsyncIterator[bytes], found: list[bytes]) -> None:
            async for answer in stream:
                found.append(answer)  # noqa: PERF401 - one by one, so that they can be looked at

        seen = Seen(wait)
        found: list[list[bytes]] = [[], []]
        tasks = [
            asyncio.create_task(reading(seen.stream(endless(first)), answers))
            for first, answers in zip((b"quick", b"slow"), found, strict=True)
        ]
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(seen.gate.close())
        assert (await refusal(tasks[0])).status.code == "UNAVAILABLE"
        assert not tasks[1].done()
        go.set()
        done, _ = await asyncio.wait(tasks[1:], timeout=5)
        assert done
        assert (await refusal(tasks[1])).status.code == "UNAVAILABLE"
        await closing
        await seen.gate.emptied()
        assert found == [[b"quick"], [b"slow"]]
        # How the wait ended is not counted to the message before it.
        assert sorted(seen.codes()) == ["OK", "OK", "UNAVAILABLE", "UNAVAILABLE"]
        assert ["images", ["a", "m", "1"], 10] in seen.telemetry.snapshot()["counters"]

    run(scenario())


def test_a_caller_that_leaves_a_stream_is_no_fault_of_the_last_message() -> None:
    async def scenario() -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b"a"
            await asyncio.sleep(60)

        async def reading() -> None:
            async for _ in seen.stream(endless()):
                pass

        seen = Seen(echo)
        task = asyncio.create_task(reading())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(seen.codes()) == ["CANCELLED", "OK"]
        assert seen.gate.open_calls == 0

    run(scenario())


def test_a_stream_shows_its_token_before_its_first_message(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(f'[tokens.bob]\nsha256 = "{digest("b")}"\n')

    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async def scenario() -> None:
        seen = Seen(echo, tokens=Tokens(file))
        assert (await refusal(anext(seen.stream(never())))).status.code == "UNAUTHENTICATED"
        assert (await refusal(seen.ask())).status.code == "UNAUTHENTICATED"
        assert await seen.ask(wire=Wire(("authorization", "Bearer b"))) == b"X"
        assert seen.gate.open_calls == 0

    run(scenario())


def test_an_overload_is_told_with_its_hint() -> None:
    async def busy(data: bytes, call: Call) -> bytes:
        raise Overloaded("later", 0.0123)

    async def scenario() -> None:
        status = (await refusal(Seen(busy).ask())).status
        assert (status.code, status.trailing) == ("RESOURCE_EXHAUSTED", ((RETRY_HINT, "13"),))

    run(scenario())


def test_a_transport_sees_every_method_of_an_api() -> None:
    seen = Seen(echo)
    made = aio.Handler(seen.edge.routes(seen.api))

    class Details:
        invocation_metadata = ()

    for name, kind in (("One", False), ("Many", True)):
        Details.method = f"/a.Service/{name}"  # type: ignore[attr-defined]
        found = made.service(Details)
        assert (found.request_streaming, found.response_streaming) == (kind, kind)
    Details.method = "/a.Service/Nothing"  # type: ignore[attr-defined]
    assert made.service(Details) is None


def test_callers_that_are_gone_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("grpc._cython.cygrpc")
    log.error("ExecuteBatchError raised in core by servicer method [%s]", b"/a")
    log.error("Unexpected [%s] raised", "X")
    assert [record.getMessage() for record in caplog.records] == ["Unexpected [X] raised"]
