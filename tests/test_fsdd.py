"""Downloading the Free Spoken Digit Dataset, from a local stand-in for its publisher."""

import hashlib
import io
import threading
import zipfile

import pytest
from mirrors import Mirror, bomb, silent
from voices import hummed

from jaxnn import cli
from jaxnn.data import fsdd, speech, wav
from jaxnn.data.download import download
from jaxnn.errors import RunError

FILES = {
    f"{digit}_anna_{take}.wav": wav.encode(hummed(digit)) for digit in (1, 2) for take in (0, 9)
}
SUMS = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES))


def packed(files, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("free-spoken-digit-dataset-1.0.10/README.md", "about it")
        for name, content in files.items():
            archive.writestr(f"free-spoken-digit-dataset-1.0.10/recordings/{name}", content)
    return out.getvalue()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The sum is that of the small set."""
    sha256 = hashlib.sha256(SUMS.encode()).hexdigest()
    monkeypatch.setattr(fsdd, "ARCHIVE", fsdd.ARCHIVE._replace(sha256=sha256, size=200_000))


@pytest.fixture
def publisher(monkeypatch):
    """A function that starts a server of some body, or behaviour; it stops with the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = []

    def start(body):
        behave = body if callable(body) else lambda handler, name: handler.answer(body)
        server = Mirror(behave)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        started.append((server, thread))
        monkeypatch.setattr(fsdd, "MIRRORS", (server.url,))
        return server

    yield start
    for server, thread in started:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_the_recordings_count_not_how_they_are_packed(method, publisher, tmp_path, capsys):
    body = packed(dict(reversed(FILES.items())), method)
    server = publisher(body)
    assert cli.main(["data", "download", "fsdd", "--to", str(tmp_path)]) == 0
    archive = tmp_path / "v1.0.10.zip"
    assert capsys.readouterr().out == (
        f"the Free Spoken Digit Dataset (CC BY-SA 4.0) lies in {archive}\n"
    )
    assert archive.read_bytes() == body
    assert [name for name, _ in server.asked] == ["v1.0.10.zip"]
    assert len(speech.load(archive)) == 4
    assert cli.main(["data", "download", "fsdd", "--to", str(tmp_path)]) == 0
    assert len(server.asked) == 1  # it is there


def test_without_a_folder_it_goes_to_the_users_cache(publisher, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    publisher(packed(FILES))
    assert cli.main(["data", "download", "fsdd"]) == 0
    assert tmp_path in fsdd.archive().parents
    assert len(speech.load(fsdd.archive())) == 4


FEWER = {name: content for name, content in FILES.items() if name != "1_anna_0.wav"}
CHANGED = {**FILES, "1_anna_0.wav": FILES["1_anna_0.wav"][:-1] + b"\x01"}
BAD = {
    "one less": (packed(FEWER), "wrong SHA-256"),
    "one changed": (packed(CHANGED), "wrong SHA-256"),
    "one renamed": (packed({"3" + name[1:]: FILES[name] for name in FILES}), "wrong SHA-256"),
    "one more": (packed({**FILES, "1_eve_1.wav": b""}), "wrong SHA-256"),
    "a page": (b"<html>Sign in</html>", "wrong SHA-256"),
    "cut": (packed(FILES)[:-30], "wrong SHA-256"),
    "another archive": (bomb, "wrong SHA-256"),
    "too much": (bytes(300_000), "sent more than 203,000 bytes"),
    "silence": (silent, "silent for 0.3 s"),
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_not_put_into_place(name, publisher, tmp_path):
    body, reason = BAD[name]
    server = publisher(body)
    with pytest.raises(RunError, match=rf"no mirror has a good copy of v1.0.10.zip: .*{reason}"):
        download(tmp_path, [server.url], files=[fsdd.ARCHIVE], timeout=0.3)
    assert not (tmp_path / "v1.0.10.zip").exists()
