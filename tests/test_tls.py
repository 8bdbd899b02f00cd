"""TLS: what is refused at the start, and certificates that change while a server runs.

The truth is another project's certificates (trustme) and real handshakes over grpc.aio.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from jaxnn.errors import ConfigError
from service import tls
from service.tls import Certificates, read_pair

os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112 - as gRPC spells it
LONG_AGO = datetime(2021, 3, 4, 5, 6, tzinfo=UTC)
LATER = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)  # the last year of two digits
Ask = Callable[..., Awaitable[bytes]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def written(folder: Path, issued: trustme.LeafCert) -> tuple[Path, Path]:
    """Writes a pair as cert-manager does: aside, then renamed into place."""
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    for name, blob in (("cert.pem", chain), ("key.pem", issued.private_key_pem.bytes())):
        aside = folder / f".{name}"
        aside.write_bytes(blob)
        aside.replace(folder / name)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def pair(tmp_path: Path, authority: trustme.CA) -> tuple[Path, Path]:
    return written(tmp_path, authority.issue_cert("127.0.0.1"))


class Clock:
    """A clock that each reading puts on by so many seconds."""

    def __init__(self, step: float = 2.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_the_bytes_are_those_of_the_files(pair: tuple[Path, Path]) -> None:
    read = read_pair(*pair, None)
    assert (read.certificate, read.key) == (pair[0].read_bytes(), pair[1].read_bytes())
    assert read.client_ca is None


@pytest.mark.parametrize("end", [LATER, datetime(2050, 1, 1, tzinfo=UTC)])
def test_the_end_of_a_certificate_is_read_in_both_forms(
    tmp_path: Path, authority: trustme.CA, end: datetime
) -> None:
    files = written(tmp_path, authority.issue_cert("127.0.0.1", not_after=end))
    assert read_pair(*files, None).expires == end.timestamp()


def test_bytes_cut_short_are_no_certificate(pair: tuple[Path, Path]) -> None:
    first = tls.FIRST_CERTIFICATE.search(pair[0].read_bytes())
    assert first
    der = ssl.PEM_cert_to_DER_cert(first[0].decode())
    for size in range(0, len(der), 7):
        with pytest.raises((ValueError, IndexError)):
            tls.end_of_validity(der[:size])


def test_each_mistake_is_one_sentence(
    tmp_path: Path, pair: tuple[Path, Path], authority: trustme.CA
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = written(other, authority.issue_cert("127.0.0.1"))
    nothing = tmp_path / "nothing.pem"
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\xff\x00 garbage")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    huge = tmp_path / "huge.pem"
    huge.write_bytes(b"-" * (tls.MAX_FILE_BYTES + 1))
    for certificate, key, client_ca, words in (
        (nothing, pair[1], None, "certificate .*nothing.pem cannot be read: No such file"),
        (pair[0], nothing, None, "private key .*nothing.pem cannot be read: No such file"),
        (pair[0], stranger[1], None, "private key .*other/key.pem does not belong to certificate"),
        (garbage, pair[1], None, "certificate .*garbage.pem holds no certificate"),
        (pair[1], pair[1], None, "certificate .*key.pem holds no certificate"),
        (pair[0], garbage, None, "certificate .* and private key .*garbage.pem cannot be used"),
        (pair[0], locked, None, "private key .*locked.pem is encrypted"),
        (huge, pair[1], None, "certificate .*huge.pem is over"),
        (*pair, nothing, "client CA .*nothing.pem cannot be read"),
        (*pair, garbage, "client CA .*garbage.pem holds no certificate"),
        (*pair, pair[1], "client CA .*key.pem holds no certificate"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            Certificates(certificate, key, client_ca)
        assert "\n" not in str(caught.value)


def test_files_that_change_while_they_are_read_are_not_taken(
    pair: tuple[Path, Path], authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = ssl.SSLContext.load_cert_chain

    def checked_just_before(context: ssl.SSLContext, *arguments: Any) -> None:
        check(context, *arguments)
        written(pair[0].parent, authority.issue_cert("127.0.0.1"))

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", checked_just_before)
    with pytest.raises(ConfigError, match="changed while it was read"):
        read_pair(*pair, None)


def test_a_certificate_that_has_ended_is_warned_of(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service")
    files = written(tmp_path, authority.issue_cert("127.0.0.1", not_after=LONG_AGO))
    Certificates(*files)
    assert "ended on 2021-03-04 05:06 UTC" in caplog.text
    caplog.clear()
    later = datetime(2052, 3, 4, 5, 6, tzinfo=UTC)
    written(tmp_path, authority.issue_cert("127.0.0.1", not_after=later))
    Certificates(*files)
    Certificates(*files, client_ca=files[0])
    assert [record.getMessage() for record in caplog.records] == [
        f"certificate {files[0]} is good until 2052-03-04 05:06 UTC",
        f"certificate {files[0]} is good until 2052-03-04 05:06 UTC, for callers with one of "
        f"{files[0]}",
    ]


def test_files_are_looked_at_once_a_second(
    tmp_path: Path, pair: tuple[Path, Path], authority: trustme.CA
) -> None:
    certificates = Certificates(*pair, clock=Clock(0.4))
    written(tmp_path, authority.issue_cert("127.0.0.1"))
    answers = [certificates.fetch() is not None for _ in range(6)]
    assert answers == [False, False, True, False, False, False]


def test_a_bad_new_pair_keeps_the_old_and_says_so_once(
    tmp_path: Path,
    pair: tuple[Path, Path],
    authority: trustme.CA,
    caplog: pytest.LogCaptureFixture,
) -> None:
    certificates = Certificates(*pair, clock=Clock())
    old = certificates.pair
    spoilers: tuple[Callable[[], object], ...] = (
        lambda: pair[1].write_bytes(b"half a ke"),
        lambda: pair[0].unlink(),
        lambda: written(tmp_path, authority.issue_cert("127.0.0.1", not_after=LONG_AGO)),
    )
    for spoil in spoilers:
        spoil()
        caplog.clear()
        assert [certificates.fetch() for _ in range(3)] == [None] * 3
        assert certificates.pair == old
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
    written(tmp_path, authority.issue_cert("127.0.0.1"))
    assert certificates.fetch() is not None
    assert certificates.pair != old


def with_server(certificates: Certificates, scenario: Callable[[Ask], Awaitable[None]]) -> None:
    """Runs a scenario against an echo over grpc.aio; `ask` opens a connection of its own."""

    async def echo(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return data

    async def run() -> None:
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(echo)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("t.Test", {"Echo": handler}),)
        )
        port = server.add_secure_port("127.0.0.1:0", certificates.credentials())
        await server.start()

        async def ask(root: bytes, key: bytes | None = None, chain: bytes | None = None) -> bytes:
            credentials = grpc.ssl_channel_credentials(root, key, chain)
            alone = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.secure_channel(
                f"127.0.0.1:{port}", credentials, options=alone
            ) as channel:
                return await channel.unary_unary("/t.Test/Echo")(b"there", timeout=10)

        try:
            async with asyncio.timeout(20):
                await scenario(ask)
        finally:
            await server.stop(None)

    asyncio.run(run())


def test_a_running_server_shows_the_new_certificate(
    tmp_path: Path, pair: tuple[Path, Path], authority: trustme.CA
) -> None:
    root = authority.cert_pem.bytes()
    successor = trustme.CA()

    async def scenario(ask: Ask) -> None:
        assert await ask(root) == b"there"
        written(tmp_path, successor.issue_cert("127.0.0.1"))
        assert await ask(successor.cert_pem.bytes()) == b"there"
        with pytest.raises(grpc.RpcError) as refused:
            await ask(root)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        pair[0].write_bytes(b"spoilt")
        assert await ask(successor.cert_pem.bytes()) == b"there"

    with_server(Certificates(*pair, clock=Clock()), scenario)


def test_with_a_client_ca_callers_must_show_a_certificate_of_it(
    tmp_path: Path, pair: tuple[Path, Path], authority: trustme.CA
) -> None:
    root = authority.cert_pem.bytes()
    clients = trustme.CA()
    ca = tmp_path / "clients.pem"
    clients.cert_pem.write_to_path(ca)

    def shown(by: trustme.CA) -> tuple[bytes, bytes, bytes]:
        issued = by.issue_cert("someone@example.org")
        return root, issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()

    async def scenario(ask: Ask) -> None:
        assert await ask(*shown(clients)) == b"there"
        for wrong in ((root,), shown(authority)):
            with pytest.raises(grpc.RpcError) as refused:
                await ask(*wrong)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    with_server(Certificates(*pair, ca), scenario)
