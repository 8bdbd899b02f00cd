"""Tokens: who is let in, how fast, and what a change of the file does."""

import hashlib
import logging
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.errors import ConfigError
from service.errors import Forbidden, Overloaded, Unauthenticated
from service.rpc import Call
from service.security import Bucket, Tokens
from service.token_file import MAX_FILE_BYTES, Identity, new_token, read_tokens
from tests.wires import Wire

ALICE = hashlib.sha256(b"secret of alice").hexdigest()
BOB = hashlib.sha256(b"secret of bob").hexdigest()


def call(header: str | None = "Bearer secret of alice") -> Call:
    wire = Wire() if header is None else Wire(("user-agent", "x"), ("authorization", header))
    return Call("v1", "Classify", wire)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[tokens.alice]\nsha256 = "{ALICE}"\nrequests_per_second = 2\nimages_per_second = 10\n'
        f'burst = 2\n[tokens.bob]\nsha256 = "{BOB.upper()}"\nadmin = true\npriority = 2\n'
    )
    return path


def test_a_table_says_who_may_do_what(file: Path) -> None:
    assert read_tokens(file) == {
        ALICE: Identity("alice", False, 0, 2.0, 10.0, 2.0),
        BOB: Identity("bob", True, 2, None, None, 1.0),
    }


def test_a_token_lets_its_owner_in(file: Path) -> None:
    tokens = Tokens(file)
    assert tokens.authorise(call()).name == "alice"
    assert tokens.authorise(call("bearer secret of bob"), control=True).name == "bob"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic secret of alice", f"Bearer {ALICE}", "Bearer \udce9x"],
)
def test_anything_else_keeps_the_caller_out(file: Path, header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Tokens(file).authorise(call(header))
    assert "secret" not in str(caught.value)
    assert ALICE not in str(caught.value)


def test_only_an_administrator_changes_what_is_served(file: Path) -> None:
    with pytest.raises(Forbidden, match="token alice may not call Classify"):
        Tokens(file).authorise(call(), control=True)


def test_requests_beyond_the_rate_are_told_when_to_come_back(file: Path) -> None:
    tokens = Tokens(file)
    alice = tokens.authorise(call())
    for _ in range(4):  # 2 a second, 2 seconds of it at once
        tokens.charge(alice, 0, 50.0)
    with pytest.raises(Overloaded, match="over its 2 requests a second") as caught:
        tokens.charge(alice, 0, 50.0)
    assert caught.value.retry_after == pytest.approx(0.5)
    tokens.charge(alice, 0, 50.0 + caught.value.retry_after)
    with pytest.raises(Overloaded):
        tokens.charge(alice, 0, 50.5)


def test_images_have_a_rate_of_their_own_and_a_refusal_takes_nothing(file: Path) -> None:
    tokens = Tokens(file)
    alice = tokens.authorise(call())
    tokens.charge(alice, 15, 0.0)
    for _ in range(3):
        with pytest.raises(Overloaded, match="10 images a second") as caught:
            tokens.charge(alice, 6, 0.0)
        assert caught.value.retry_after == pytest.approx(0.1)
    for _ in range(3):  # the refused ones have cost no request: three of four are left
        tokens.charge(alice, 0, 0.0)


def test_images_can_be_charged_apart_from_their_request(file: Path) -> None:
    tokens = Tokens(file)
    alice = tokens.authorise(call())
    for _ in range(9):
        tokens.charge(alice, 1, 0.0, requests=0)
    for _ in range(4):
        tokens.charge(alice, 0, 0.0)


def test_a_request_larger_than_the_bucket_passes_and_is_paid_for_afterwards(file: Path) -> None:
    tokens = Tokens(file)
    alice = tokens.authorise(call())
    tokens.charge(alice, 120, 0.0)  # the bucket holds 20
    with pytest.raises(Overloaded) as caught:
        tokens.charge(alice, 1, 0.0)
    assert caught.value.retry_after == pytest.approx((100 + 1) / 10)


def test_without_a_rate_there_is_no_limit(file: Path) -> None:
    tokens = Tokens(file)
    bob = tokens.authorise(call("Bearer secret of bob"))
    for _ in range(1000):
        tokens.charge(bob, 10**6, 0.0)


@given(
    st.floats(0.1, 1e4),
    st.floats(0.01, 10),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50)), max_size=60),
)
def test_a_bucket_never_gives_more_than_its_rate(
    rate: float, burst: float, asked: list[tuple[float, int]]
) -> None:
    bucket, now, given_away, largest = Bucket(rate, burst), 0.0, 0, 0
    for pause, cost in asked:
        now += pause
        if bucket.wait(cost, now) == 0:
            bucket.take(cost)
            given_away, largest = given_away + cost, max(largest, cost)
        # What dripped in, a full bucket, and what the largest request went beyond it.
        assert given_away <= (now * rate + max(1.0, rate * burst) + largest) * (1 + 1e-9)


@given(st.floats(0.1, 1e4), st.lists(st.integers(1, 50), max_size=30))
def test_waiting_as_long_as_told_is_enough(rate: float, asked: list[int]) -> None:
    bucket, now = Bucket(rate, 1.0), 0.0
    for cost in asked:
        now += bucket.wait(cost, now)
        assert bucket.wait(cost, now) < 1e-6 * (1 + now)  # rounding of sums of seconds
        bucket.take(cost)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(1.0, 1.0)
    assert bucket.wait(1, 10.0) == 0
    bucket.take(1)
    assert bucket.wait(1, 5.0) == 1.0
    assert bucket.wait(1, 10.5) == 0.5


def test_a_changed_file_is_read_within_a_second(file: Path) -> None:
    clock = Clock()
    tokens = Tokens(file, clock)
    alice = tokens.authorise(call())
    file.write_text(f'[tokens.bob]\nsha256 = "{BOB}"\n')
    clock.now += 0.9
    assert tokens.authorise(call()) == alice
    clock.now += 0.2
    with pytest.raises(Unauthenticated):
        tokens.authorise(call())
    with pytest.raises(Unauthenticated, match="token alice has been withdrawn"):
        tokens.charge(alice, 1, 0.0)


@pytest.mark.parametrize("spoilt", ["[tokens.alice", "", None])
def test_a_bad_file_leaves_the_tokens_as_they_were(
    file: Path, spoilt: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    tokens = Tokens(file, clock)
    caplog.clear()
    file.unlink() if spoilt is None else file.write_text(spoilt)
    for _ in range(3):
        clock.now += 2
        assert tokens.authorise(call()).name == "alice"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "the tokens of before stay in use" in caplog.text


def test_what_was_read_is_told_of_where_it_changed(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service")
    tokens = Tokens(file)
    tokens.reload()
    file.write_text(f'[tokens.bob]\nsha256 = "{BOB}"\n')
    tokens.reload()
    tokens.reload()
    assert [record.getMessage() for record in caplog.records] == [
        f"2 tokens read from {file}",
        f"1 token read from {file}",
    ]


def test_reload_does_not_wait_and_keeps_what_is_spent(file: Path) -> None:
    tokens = Tokens(file)
    alice = tokens.authorise(call())
    for _ in range(4):
        tokens.charge(alice, 0, 0.0)
    text = file.read_text()
    file.write_text(text + f'[tokens.carol]\nsha256 = "{"0" * 64}"\n')
    tokens.reload()
    with pytest.raises(Overloaded):
        tokens.charge(alice, 0, 0.0)
    file.write_text(text.replace("requests_per_second = 2", "requests_per_second = 3"))
    tokens.reload()
    for _ in range(6):  # new rates begin with a full bucket, also for a caller who came before
        tokens.charge(alice, 0, 0.0)
    with pytest.raises(Overloaded, match="over its 3 requests"):
        tokens.charge(alice, 0, 0.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tokens = 1", "holds no token, expected a table"),
        ("[token.alice]", r"holds \['token'\], expected a table"),
        ("x = [[[", "is no TOML"),
        ("x = " + "[" * 100_000, "is no TOML"),
        ("tokens.alice = 3", "tokens.alice is of type int, expected a table"),
        ("[tokens.alice]", "tokens.alice.sha256 is not the 64 hex"),
        ('[tokens.alice]\nsha256 = "secret"', "sha256 is not the 64 hex"),
        ('[tokens."a b"]', "has the name 'a b', expected 1 to 64 letters"),
        (f'[tokens.a]\nsha256="{ALICE}"\nburst = 0', "burst is 0, expected a number from 0.001"),
        (f'[tokens.a]\nsha256="{ALICE}"\nburst = 1{"0" * 400}', "expected a number from 0.001"),
        (f'[tokens.a]\nsha256="{ALICE}"\nburst = nan', "burst is nan, expected a number"),
        (f'[tokens.a]\nsha256="{ALICE}"\nburst = true', "burst is True, expected a number"),
        (f'[tokens.a]\nsha256="{ALICE}"\nadmin = 1', "admin is 1, expected true or false"),
        (f'[tokens.a]\nsha256="{ALICE}"\npriority = -1', "priority is -1, expected a whole"),
        (f'[tokens.a]\nsha256="{ALICE}"\nrate = 1', "has rate, expected only sha256, req"),
        (
            f'[tokens.a]\nsha256="{ALICE}"\n[tokens.b]\nsha256="{ALICE}"',
            "a and b have the same sha256",
        ),
        ("#" * (MAX_FILE_BYTES + 1), "is over 1048576 bytes"),
    ],
)
def test_each_mistake_in_the_file_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_tokens(path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"token file .* cannot be read: No such file"):
        Tokens(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["alice", "team-a.b_1"])
def test_a_new_token_opens_what_its_table_describes(tmp_path: Path, name: str) -> None:
    token, table = new_token(name)
    assert token not in table
    assert list(tomllib.loads(table)["tokens"]) == [name]
    path = tmp_path / "tokens.toml"
    path.write_text(table)
    assert Tokens(path).authorise(call(f"Bearer {token}")) == Identity(name)
    assert new_token(name)[0] != token


def test_a_new_token_needs_a_name_that_can_stand_in_a_log() -> None:
    with pytest.raises(ConfigError, match="the new token has the name"):
        new_token("a\nb")
