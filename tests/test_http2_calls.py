"""The lean transport over sockets, by gRPC's own client."""

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hostile import resident
from http2_caller import LIMIT_S, Server, run

from service import described, health, pool, tls
from service.status import RETRY_HINT

CODE = grpc.StatusCode
MiB = 2**20


@asynccontextmanager
async def channel_to(server: Server, **options: Any) -> AsyncIterator[grpc.aio.Channel]:
    given = [(f"grpc.{name}", value) for name, value in options.items()]
    given += [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=given) as channel:
        yield channel


@pytest.mark.parametrize("compression", list(grpc.Compression), ids=str)
def test_large_messages_both_ways(compression: grpc.Compression) -> None:
    data = bytes(range(256)) * (5 * MiB // 256)

    async def scenario(server: Server) -> None:
        async with channel_to(server) as channel:
            call = channel.unary_unary("/t/echo")
            answers = await asyncio.gather(*(call(data, compression=compression) for _ in range(3)))
            assert answers == [data] * 3
            stream = channel.stream_stream(
                "/t/each",
            )(iter([data, b"", b"x"]), compression=compression)
            assert [answer async for answer in stream] == [data, b"", b"x"]

    run(scenario)


def test_statuses_metadata_deadlines_and_cancels() -> None:
    async def scenario(server: Server) -> None:
        async with channel_to(server) as channel:
            for data, code, told in (
                (b"a", CODE.INVALID_ARGUMENT, "100 % wr\u00f6ng\n"),
                (b"b", CODE.RESOURCE_EXHAUSTED, "later"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await channel.unary_unary("/t/fail")(data)
                assert (failed.value.code(), failed.value.details()) == (code, told)
            assert dict(failed.value.trailing_metadata()) == {RETRY_HINT: "1500"}
            metadata = (("x-bin", b"\0\xff,"), ("x-a", "b"))
            await channel.unary_unary("/t/echo")(b"", metadata=metadata, timeout=5)
            (wire,) = server.served.wires
            assert set(metadata) <= set(wire.invocation_metadata())
            assert 4 < wire.time_remaining() < 5.5 and wire.peer().startswith("ipv4:127.0.0.1:")
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await channel.unary_unary("/t/slow")(b"x", timeout=0.05)
            assert late.value.code() is CODE.DEADLINE_EXCEEDED
            call = channel.unary_unary("/t/slow")(b"x")
            await server.until(lambda: server.served.begun == 2)
            call.cancel()
            await server.until(lambda: server.served.cancelled == 2)

    run(scenario)


def test_health_and_reflection() -> None:
    state = health.Health()
    state.set(["t"], {"m": True})
    messages = pool.describing(health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    more = state.routes | described.routes((health.SERVICE,), messages)
    kinds = health_pb2.HealthCheckResponse

    async def scenario(server: Server) -> None:
        async with channel_to(server) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watching = stub.Watch(health_pb2.HealthCheckRequest(service="m"))
            assert (await watching.read()).status == kinds.SERVING
            state.set(["t"], {"m": False})
            assert (await watching.read()).status == kinds.NOT_SERVING
            state.stop()
            assert await watching.code() is CODE.OK
            asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=health.SERVICE)
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
            (found,) = [answer async for answer in call(iter([asked]))]
            assert health_pb2.DESCRIPTOR.serialized_pb in (
                found.file_descriptor_response.file_descriptor_proto
            )

    run(scenario, more)


def put(folder: Path, issued: trustme.LeafCert, callers: trustme.CA) -> None:
    """The files of a server's TLS, as one who renews them puts them into place."""
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    secret = issued.private_key_pem.bytes()
    for name, blob in (("key", secret), ("chain", chain), ("ca", callers.cert_pem.bytes())):
        (folder / "new").write_bytes(blob)
        (folder / "new").replace(folder / name)


def said(port: int, context: ssl.SSLContext, session: Any = None) -> tuple[bytes, Any, bool | None]:
    """What a server says first, the session, and whether it goes on with the given one."""
    plain = socket.create_connection(("127.0.0.1", port), LIMIT_S)
    with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure:
        return secure.recv(9), secure.session, secure.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_callers_of_an_authority_that_was_replaced_stay_outside(
    version: ssl.TLSVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a session of before, which asks for no certificate."""
    monkeypatch.setattr(tls, "CHECK_EVERY_S", 0.0)
    own, before, after = trustme.CA(), trustme.CA(), trustme.CA()
    put(tmp_path, own.issue_cert("127.0.0.1"), before)
    old, new = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2))
    for context, ca in ((old, before), (new, after)):
        own.configure_trust(context)
        ca.issue_cert("me").configure_cert(context)
        context.maximum_version = version

    async def scenario(server: Server) -> None:
        _, session, _ = await asyncio.to_thread(said, server.port, old)
        told, session, reused = await asyncio.to_thread(said, server.port, old, session)
        assert told and reused
        put(tmp_path, own.issue_cert("127.0.0.1"), after)
        try:
            told, _, _ = await asyncio.to_thread(said, server.port, old, session)
        except OSError:  # in TLS 1.2 the handshake fails, in 1.3 what comes after it
            told = b""
        assert told == b"" and (await asyncio.to_thread(said, server.port, new))[0]

    files = {"tls_certificate": "chain", "tls_key": "key", "tls_client_ca": "ca"}
    run(scenario, **{name: tmp_path / file for name, file in files.items()})


def test_idle_connections_are_small() -> None:
    async def scenario(server: Server) -> None:
        async def open_(count: int) -> list[asyncio.StreamWriter]:
            found = []
            for _ in range(count):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
                found.append(writer)
            await server.until(lambda: all(one._agreed for one in server.connections))
            return found

        writers = await open_(20)
        gc.collect()
        before = resident()
        writers += await open_(200)
        # Both ends, of which the caller's streams are the larger one.
        assert (resident() - before) / 200 < 64 * 1024
        for writer in writers:
            writer.transport.abort()
        await server.until(lambda: not server.connections)

    run(scenario)
