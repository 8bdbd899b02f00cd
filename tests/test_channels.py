"""How servers are reached: addresses, several of them, TLS and tokens, each with both clients."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
import trustme
from fakes import Fake

from jaxnn.errors import ConfigError
from service.calling import steps
from service.calling.connection import Connection, Target, parse_target
from service.client import AsyncDigitClient, DigitClient
from service.errors import ServiceError

LIMIT_S = 20.0
IMAGES = np.zeros((1, 784), np.uint8)

Ask = Callable[..., None]  # (target, times, **options of the client)


@pytest.fixture(params=["DigitClient", "AsyncDigitClient"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Classifies one image so many times with one of the two clients."""
    monkeypatch.setattr(steps, "FIRST_DELAY_S", 0.001)

    def blocking(target: str, times: int = 1, **options: Any) -> None:
        with DigitClient(target, timeout=LIMIT_S, **options) as client:
            for _ in range(times):
                client.classify(IMAGES)

    async def awaited(target: str, times: int = 1, **options: Any) -> None:
        async with AsyncDigitClient(target, timeout=LIMIT_S, **options) as client:
            for _ in range(times):
                await client.classify(IMAGES)

    def run(*arguments: Any, **options: Any) -> None:
        asyncio.run(awaited(*arguments, **options))

    return blocking if request.param == "DigitClient" else run


# Addresses


@pytest.mark.parametrize(
    ("text", "uri", "several", "here"),
    [
        ("localhost:1", "localhost:1", False, True),
        ("127.0.0.7:65535", "127.0.0.7:65535", False, True),
        ("127.evil.example:1", "127.evil.example:1", False, False),
        ("digits.example:50051", "digits.example:50051", False, False),
        ("[::1]:1", "[::1]:1", False, True),
        ("10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2", True, False),
        ("127.0.0.1:1, 127.0.0.1:2", "ipv4:127.0.0.1:1,127.0.0.1:2", True, True),
        ("127.0.0.1:1,10.0.0.2:2", "ipv4:127.0.0.1:1,10.0.0.2:2", True, False),
        ("[::1]:1,[fe80::1]:2", "ipv6:[::1]:1,[fe80::1]:2", True, False),
        ("dns:///digits.example:1", "dns:///digits.example:1", True, False),
        ("dns:///localhost:1", "dns:///localhost:1", True, True),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", "ipv4:127.0.0.1:1,10.0.0.1:1", True, False),
        ("unix:/tmp/socket", "unix:/tmp/socket", False, True),
    ],
)
def test_targets(text: str, uri: str, several: bool, here: bool) -> None:
    assert parse_target(text) == Target(text, uri, several, here)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("localhost", "expected HOST:PORT"),
        ("", "expected HOST:PORT"),
        (":1", "expected HOST:PORT"),
        ("localhost:", "expected HOST:PORT"),
        ("localhost:0", "expected HOST:PORT"),
        ("localhost:65536", "expected HOST:PORT"),
        ("10.0.0.1:1,", "expected HOST:PORT"),
        ("a.example:1,b.example:1", "several addresses must be IP addresses"),
        ("10.0.0.1:1,[::1]:1", "several addresses must be IP addresses"),
        ("::1:1,::2:1", "several addresses must be IP addresses"),
    ],
)
def test_what_is_no_target_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        DigitClient(text)


def test_several_servers_take_turns_and_a_dead_one_is_left_out(ask: Ask) -> None:
    with Fake() as first, Fake() as second, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
        ask(f"{first.target},{dead},{second.target}", 40)
        shares = [len(fake.asked) for fake in (first, second)]
    assert sum(shares) == 40 and min(shares) >= 15


def test_a_server_that_is_not_well_is_left_out_until_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "FIRST_DELAY_S", 0.001)

    def asked(client: DigitClient, *fakes: Fake) -> list[int]:
        before = [len(fake.asked) for fake in fakes]
        for _ in range(10):
            client.classify(IMAGES)
        return [len(fake.asked) - count for fake, count in zip(fakes, before, strict=True)]

    def until(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    with Fake() as first, Fake() as second:
        target = f"{first.target},{second.target}"
        with DigitClient(target) as client:
            until(lambda: min(asked(client, first, second)) > 0)
            first.well(False)
            until(lambda: asked(client, first, second) == [0, 10])
            second.well(False)
            with pytest.raises(ServiceError, match=f"every server at {target} says that it is not"):
                until(lambda: not asked(client, first, second))
            first.well(True)
            until(lambda: asked(client, first, second) == [10, 0])


def test_a_single_server_is_asked_even_when_it_says_that_it_is_not_well(ask: Ask) -> None:
    with Fake() as fake:
        fake.well(False)  # as a server that is stopping says, and goes on answering
        ask(fake.target, 3)


def test_connections_of_its_own_for_each_channel(ask: Ask) -> None:
    with Fake() as fake:
        ask(fake.target, 9, connections=3)
    peers = [asked.peer for asked in fake.asked]
    assert sorted(map(peers.count, set(peers))) == [3, 3, 3]


# Tokens


def test_the_token_goes_with_every_call(ask: Ask) -> None:
    with Fake() as fake:
        ask(fake.target, 2, connection=Connection(token="s3cret"))  # noqa: S106
        ask(fake.target, 1)
    sent = [asked.metadata.get("authorization") for asked in fake.asked]
    assert sent == ["Bearer s3cret", "Bearer s3cret", None]


def test_a_token_does_not_travel_unencrypted() -> None:
    token = "s3cret"  # noqa: S105
    for target in ("digits.example:1", "127.0.0.1:1,10.0.0.1:1", "dns:///digits.example:1"):
        with pytest.raises(ConfigError, match="would cross the network unencrypted") as refused:
            DigitClient(target, connection=Connection(token=token))
        assert "with tls (--tls) or tls_ca (--tls-ca), or" in str(refused.value)
        assert token not in str(refused.value)
        for allowed in (
            Connection(token=token, tls=True),
            Connection(token=token, token_in_clear=True),
            Connection(),
        ):
            DigitClient(target, connection=allowed).close()


@pytest.mark.parametrize("token", ["", "two words", "line\nend", "naïve"])
def test_what_is_no_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ConfigError, match="the token holds") as refused:
        Connection(token=token)
    assert not token or token not in str(refused.value)


def test_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAXNN_TOKEN", raising=False)
    assert Connection().with_environment() == Connection()
    monkeypatch.setenv("JAXNN_TOKEN", "mine")
    assert Connection(tls=True).with_environment() == Connection(tls=True, token="mine")  # noqa: S106
    given = Connection(token="given")  # noqa: S106
    assert given.with_environment() == given


# TLS


class Papers(NamedTuple):
    """Files of an authority, and of a client that it vouches for."""

    ca: Path
    certificate: Path
    key: Path
    other_ca: Path  # which vouches for nobody here
    server: tuple[bytes, bytes]  # key, chain
    named: tuple[bytes, bytes]  # of a server that is not called 127.0.0.1


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    ca, other = trustme.CA(), trustme.CA()
    client = ca.issue_cert("client@digits.example")
    server, named = ca.issue_cert("127.0.0.1", "localhost"), ca.issue_cert("digits.example")
    paths = [folder / name for name in ("ca.pem", "client.pem", "client.key", "other.pem")]
    chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
    for path, data in zip(
        paths,
        (ca.cert_pem.bytes(), chain, client.private_key_pem.bytes(), other.cert_pem.bytes()),
        strict=True,
    ):
        path.write_bytes(data)
    pairs = [
        (leaf.private_key_pem.bytes(), b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        for leaf in (server, named)
    ]
    return Papers(*paths, *pairs)


def test_tls_with_ones_own_authority(ask: Ask, papers: Papers) -> None:
    with Fake(credentials=grpc.ssl_server_credentials([papers.server])) as fake:
        ask(fake.target, 2, connection=Connection(tls_ca=papers.ca, token="s3cret"))  # noqa: S106
        assert [asked.metadata["authorization"] for asked in fake.asked] == ["Bearer s3cret"] * 2
        for distrusting in (Connection(tls=True), Connection(tls_ca=papers.other_ca)):
            with pytest.raises(ServiceError, match="is not to be trusted") as failed:
                ask(fake.target, connection=distrusting)
            assert failed.value.code == "UNAVAILABLE"
            assert str(failed.value) == (
                f"the certificate of the server at {fake.target} is not to be trusted (unable to "
                "get local issuer certificate): name the authority that signed it with tls_ca "
                "(--tls-ca), or what it was made for with tls_name (--tls-name)"
            )
        with pytest.raises(ServiceError, match=r"closes every connection: .* tls_ca \(--tls-ca\)"):
            ask(fake.target)
        assert len(fake.asked) == 2


def test_a_server_with_another_name(ask: Ask, papers: Papers) -> None:
    with Fake(credentials=grpc.ssl_server_credentials([papers.named])) as fake:
        with pytest.raises(ServiceError, match=r"trusted \(hostname verification check failed\)"):
            ask(fake.target, connection=Connection(tls_ca=papers.ca))
        ask(fake.target, connection=Connection(tls_ca=papers.ca, tls_name="digits.example"))


def test_tls_to_a_server_without(ask: Ask, papers: Papers) -> None:
    with Fake() as fake, pytest.raises(ServiceError, match="is TLS on at both ends") as failed:
        ask(fake.target, connection=Connection(tls_ca=papers.ca))
    assert "WRONG_VERSION_NUMBER" in str(failed.value) and ": OK" not in str(failed.value)


def test_a_server_that_asks_for_certificates(ask: Ask, papers: Papers) -> None:
    credentials = grpc.ssl_server_credentials([papers.server], papers.ca.read_bytes(), True)
    with Fake(credentials=credentials) as fake:
        both = Connection(tls_ca=papers.ca, tls_certificate=papers.certificate, tls_key=papers.key)
        ask(fake.target, connection=both)
        with pytest.raises(ServiceError, match="if it asks for a client's certificate"):
            ask(fake.target, connection=Connection(tls_ca=papers.ca))
        assert len(fake.asked) == 1


def test_files_of_tls_are_checked(tmp_path: Path, papers: Papers) -> None:
    with pytest.raises(ConfigError, match=r"tls_key \(--tls-key\) is missing"):
        Connection(tls_certificate=papers.certificate)
    with pytest.raises(ConfigError, match=r"tls_certificate \(--tls-certificate\) is missing"):
        Connection(tls_key=papers.key)
    with pytest.raises(ConfigError, match=r"absent\.pem cannot be read \(No such file"):
        DigitClient("localhost:1", connection=Connection(tls_ca=tmp_path / "absent.pem"))
    (tmp_path / "empty.pem").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"empty\.pem holds no -----BEGIN line"):
        DigitClient("localhost:1", connection=Connection(tls_ca=tmp_path / "empty.pem"))
    (tmp_path / "rubbish.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n")
    with pytest.raises(ConfigError, match=r"rubbish\.pem holds no certificate that can be read"):
        DigitClient("localhost:1", connection=Connection(tls_ca=tmp_path / "rubbish.pem"))
    foreign = tmp_path / "foreign.key"
    foreign.write_bytes(papers.server[0])
    for key in (foreign, tmp_path / "rubbish.pem"):
        pair = Connection(tls_certificate=papers.certificate, tls_key=key)
        with pytest.raises(ConfigError, match="are no certificate and private key that fit"):
            DigitClient("localhost:1", connection=pair)
