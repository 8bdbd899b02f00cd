"""Downloading, against local mirrors that are slow, lie, break off or refuse."""

import gzip
import socket
import threading
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from mirrors import (
    ARRAYS,
    BODIES,
    BODY,
    CONTENT,
    FILES,
    NAME,
    ONE,
    Mirror,
    bomb,
    broken,
    corrupt,
    cut,
    dripping,
    endless,
    forbidden,
    good,
    ignores_range,
    missing,
    no_http,
    no_such_range,
    nothing,
    other_content,
    packs_otherwise,
    redirect_loop,
    redirect_to_file,
    redirect_to_ftp,
    redirect_to_nonsense,
    silent,
    stalling,
    web_page,
    wrong_range,
)

from jaxnn import data
from jaxnn.data import download as module
from jaxnn.data.download import download
from jaxnn.errors import RunError


@pytest.fixture
def mirror(monkeypatch):
    """A function that starts a mirror of a given behaviour; all stop with the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = []

    def start(behave):
        server = Mirror(behave)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
        assert not thread.is_alive()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_fetches_all_and_loads(mirror, tmp_path):
    server = mirror(good)
    seen = []
    found = download(
        tmp_path / "a" / "b", [server.url], lambda *what: seen.append(what), files=FILES
    )
    assert found == tmp_path / "a" / "b"
    assert same(data.load(found), ARRAYS)
    assert server.asked == [(name, None) for name in BODIES]
    assert sorted(path.name for path in found.iterdir()) == sorted([*BODIES, "download.lock"])
    for name, body in BODIES.items():
        own = [(done, total) for seen_name, done, total in seen if f"{seen_name}.gz" == name]
        assert own == sorted(own)
        assert own[-1] == (len(body), len(body))


def test_good_files_are_not_fetched_again(mirror, tmp_path):
    server = mirror(good)
    download(tmp_path, [server.url], files=FILES)
    server.asked.clear()
    damaged = tmp_path / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    download(tmp_path, [server.url], files=FILES)
    assert server.asked == [("t10k-images-idx3-ubyte.gz", None)]
    assert same(data.load(tmp_path), ARRAYS)
    assert download(tmp_path, [], files=FILES) == tmp_path  # needs no mirror now


BAD = {
    "missing": (missing, r"HTTP status 404"),
    "forbidden": (forbidden, r"HTTP status 403"),
    "no such range": (no_such_range, r"HTTP status 416"),
    "broken": (broken, r"HTTP status 500"),
    "corrupt": (corrupt, r"wrong SHA-256"),
    "other content": (other_content, r"wrong SHA-256"),
    "web page": (web_page, r"wrong SHA-256"),
    "nothing": (nothing, r"wrong SHA-256"),
    "cut": (cut, r"stopped after 10,000 of \d\d,\d{3} bytes"),
    "silent": (silent, r"silent for 0\.4 s"),
    "stalling": (stalling, r"silent for 0\.4 s"),
    "dripping": (dripping, r"slower than 1,000 bytes a second"),
    "endless": (endless, r"sent more than 32,6\d\d bytes"),
    "bomb": (bomb, r"wrong SHA-256"),
    "no HTTP": (no_http, r"BadStatusLine"),
    "redirect loop": (redirect_loop, r"HTTP status 302"),
    "redirect to a file": (redirect_to_file, r"HTTP status 302"),
    "redirect to FTP": (redirect_to_ftp, r"unknown url type: ftp"),
    "redirect to nonsense": (redirect_to_nonsense, r"InvalidURL"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_mirror_is_passed_over(mirror, tmp_path, case):
    behave, reason = BAD[case]
    bad = mirror(behave)
    with pytest.raises(RunError, match=reason) as caught:
        download(tmp_path, [bad.url], files=ONE, timeout=0.4)
    assert str(caught.value).startswith(f"no mirror has a good copy of {NAME}: 127.0.0.1:")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert not (tmp_path / NAME).exists()
    part = tmp_path / f"{NAME}.part"
    assert not part.exists() or part.stat().st_size <= 10_000  # nothing wrong, nothing huge
    assert len(bad.asked) == 1 or case == "redirect loop"  # not asked again in vain
    # What it left behind does not spoil the next mirror's copy.
    download(tmp_path, [bad.url, mirror(good).url], files=ONE, timeout=0.4)
    assert (tmp_path / NAME).read_bytes() == BODY
    assert not part.exists()


def test_a_bomb_is_not_unpacked(mirror, tmp_path):
    server = mirror(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match="wrong SHA-256"):
            download(tmp_path, [server.url], files=ONE)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # bytes, of 20 MB
    finally:
        tracemalloc.stop()


def test_a_slow_mirror_is_good_enough(mirror, tmp_path):
    def slow(handler, name):
        handler.answer(b"", promised=len(BODIES[name]))
        for at in range(5):  # 50 bytes a second: not judged before the time-out
            handler.wfile.write(BODIES[name][at : at + 1])
            time.sleep(0.02)
        for at in range(5, len(BODIES[name]), 4000):
            time.sleep(0.1)  # 40 kB/s: longer than the time-out in all, never silent that long
            handler.wfile.write(BODIES[name][at : at + 4000])

    download(tmp_path, [mirror(slow).url], files=ONE, timeout=0.4)
    assert (tmp_path / NAME).read_bytes() == BODY


def test_every_mirror_is_named_with_its_reason(mirror, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    servers = [mirror(forbidden), mirror(corrupt)]
    urls = [server.url for server in servers] + [f"http://127.0.0.1:{port}/", "nonsense"]
    with pytest.raises(RunError) as caught:
        download(tmp_path, urls, files=ONE, timeout=2)
    hosts = [f"127.0.0.1:{server.server_address[1]}" for server in servers]
    assert str(caught.value) == (
        f"no mirror has a good copy of {NAME}: {hosts[0]} (HTTP status 403), "
        f"{hosts[1]} (wrong SHA-256), 127.0.0.1:{port} (Connection refused), "
        f"nonsense (ValueError); check the network, or put the file into {tmp_path} yourself"
    )
    with pytest.raises(RunError, match="none was given"):
        download(tmp_path, [], files=ONE)


def test_the_mirror_that_worked_is_asked_first_next_time(mirror, tmp_path):
    bad, fine = mirror(forbidden), mirror(good)
    download(tmp_path, [bad.url, fine.url], files=FILES)
    assert len(bad.asked) == 1
    assert len(fine.asked) == 4


def test_follows_a_redirect_with_the_range(mirror, tmp_path):
    fine = mirror(good)
    front = mirror(lambda handler, name: handler.answer(b"", 302, Location=f"{fine.url}{name}"))
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:7])
    download(tmp_path, [front.url], files=ONE)
    assert fine.asked == [(NAME, "bytes=7-")]
    assert (tmp_path / NAME).read_bytes() == BODY


@pytest.mark.parametrize(
    ("part", "behave", "ranges"),
    [
        (BODY[:20_000], good, ["bytes=20000-"]),
        (BODY[:20_000], ignores_range, ["bytes=20000-"]),
        (BODY, good, [f"bytes={len(BODY)}-"]),  # killed before the rename: 416 says it is whole
        (BODY + b"more", good, [f"bytes={len(BODY) + 4}-", None]),  # 416, and wrong
        (b"x" * 20_000, good, ["bytes=20000-", None]),  # rubbish: wrong when completed
        (b"x" * 100_000, good, ["bytes=100000-", None]),
        (BODY[:20_000], packs_otherwise, ["bytes=20000-", None]),  # another mirror's gzip
        (b"", good, [None]),
    ],
)
def test_resumes(mirror, tmp_path, part, behave, ranges):
    server = mirror(behave)
    (tmp_path / f"{NAME}.part").write_bytes(part)
    download(tmp_path, [server.url], files=ONE)
    assert server.asked == [(NAME, wanted) for wanted in ranges]
    assert gzip.decompress((tmp_path / NAME).read_bytes()) == CONTENT[NAME[:-3]]
    assert not (tmp_path / f"{NAME}.part").exists()


def test_a_break_is_resumed_by_the_next_mirror_and_by_the_next_call(mirror, tmp_path):
    def two_bytes_more(handler, name):
        start = int(handler.headers["Range"][6:-1])
        between = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        body = BODY[start : start + 2]
        handler.answer(body, 206, promised=len(BODY) - start, Content_Range=between)

    first, second, third = mirror(cut), mirror(two_bytes_more), mirror(good)
    with pytest.raises(RunError, match=r"stopped after 10,000 of .*stopped after 10,002 of"):
        download(tmp_path, [first.url, second.url], files=ONE)
    assert (tmp_path / f"{NAME}.part").read_bytes() == BODY[:10_002]
    seen = []
    download(tmp_path, [third.url], lambda *what: seen.append(what), files=ONE)
    assert third.asked == [(NAME, "bytes=10002-")]
    assert seen[0][1] > 10_002  # the report counts from the file's start
    assert seen[-1] == (NAME[:-3], len(BODY), len(BODY))


def test_an_interrupt_keeps_the_part(mirror, tmp_path):
    def interrupt(name, done, total):
        raise KeyboardInterrupt

    server = mirror(good)
    with pytest.raises(KeyboardInterrupt):
        download(tmp_path, [server.url], interrupt, files=ONE)
    assert BODY.startswith((tmp_path / f"{NAME}.part").read_bytes())
    download(tmp_path, [server.url], files=ONE)
    assert (tmp_path / NAME).read_bytes() == BODY


def test_another_range_than_asked_for_is_refused(mirror, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:5])
    with pytest.raises(RunError, match="another range than was asked for"):
        download(tmp_path, [mirror(wrong_range).url], files=ONE)


def test_a_mirror_that_unpacks_is_accepted(mirror, tmp_path):
    # Some servers and proxies undo the gzip on the way.
    server = mirror(lambda handler, name: handler.answer(CONTENT[name[:-3]]))
    download(tmp_path, [server.url], files=FILES)
    assert same(data.load(tmp_path), ARRAYS)


def test_two_at_once_fetch_each_file_once(mirror, tmp_path):
    def unhurried(handler, name):
        time.sleep(0.05)
        good(handler, name)

    server = mirror(unhurried)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(download(tmp_path, [server.url], files=FILES)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [tmp_path] * 3
    assert Counter(name for name, _ in server.asked) == Counter(list(BODIES))
    assert same(data.load(tmp_path), ARRAYS)


def test_a_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match=r"file/mnist cannot be written to: Not a directory"):
        download(tmp_path / "file" / "mnist", [], files=FILES)


def test_default_directory_is_the_one_that_is_loaded(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = download(None, [mirror(good).url], files=FILES)
    assert tmp_path in found.parents
    assert same(data.load("mnist"), ARRAYS)


@pytest.mark.mnist
def test_the_real_files_have_the_recorded_sums(mnist):
    sums = dict(line.split()[::-1] for line in (mnist / "SHA256SUMS").read_text().splitlines())
    assert {file.name: file.sha256 for file in module.FILES} == sums
