"""Local stand-ins for MNIST's mirrors: good ones, and ones that are slow, lie or refuse."""

import gzip
import hashlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from jaxnn import data
from jaxnn.data import download, idx
from jaxnn.data.download import RemoteFile

rng = np.random.default_rng(3)
ARRAYS = data.Dataset(
    rng.integers(0, 256, (40, 28, 28), np.uint8),
    rng.integers(0, 10, 40, np.uint8),
    rng.integers(0, 256, (9, 28, 28), np.uint8),
    rng.integers(0, 10, 9, np.uint8),
)
CONTENT = {file.name: idx.encode(a) for file, a in zip(download.FILES, ARRAYS, strict=True)}
FILES = tuple(
    RemoteFile(name, len(blob), hashlib.sha256(blob).hexdigest()) for name, blob in CONTENT.items()
)
BODIES = {f"{name}.gz": gzip.compress(blob, mtime=0) for name, blob in CONTENT.items()}
ONE = FILES[:1]
NAME = "train-images-idx3-ubyte.gz"
BODY = BODIES[NAME]  # about 31,000 bytes of noise

BOMB = gzip.compress(bytes(20_000_000))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        self.server.asked.append((name, self.headers.get("Range")))
        try:
            self.server.behave(self, name)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client gave up, as it should

    def log_message(self, *args):
        """Quiet."""

    def answer(self, body, status=200, promised=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer_range(self, body):
        """What a good server does, with or without a Range."""
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.answer(body)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            return self.answer(b"", 416, Content_Range=f"bytes */{len(body)}")
        between = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self.answer(body[start:], 206, Content_Range=between)


def good(handler, name):
    handler.answer_range(BODIES[name])


def missing(handler, name):
    handler.answer(b"gone", 404)


def forbidden(handler, name):
    handler.answer(b"<html>no</html>", 403)


def no_such_range(handler, name):
    handler.answer(b"", 416)  # whatever was asked for


def broken(handler, name):
    handler.answer(b"", 500)


def corrupt(handler, name):
    body = bytearray(BODIES[name])
    body[len(body) // 2] ^= 1
    handler.answer_range(bytes(body))


def other_content(handler, name):
    handler.answer_range(gzip.compress(b"other"))


def web_page(handler, name):
    handler.answer(b"<html>Sign in to this network</html>")


def nothing(handler, name):
    handler.answer(b"", 204)


def cut(handler, name):
    handler.answer(BODIES[name][:10_000], promised=len(BODIES[name]))


def silent(handler, name):
    handler.server.released.wait(5)


def stalling(handler, name):
    cut(handler, name)
    handler.wfile.flush()
    handler.server.released.wait(5)


def dripping(handler, name):
    handler.answer(b"", promised=len(BODIES[name]))
    for byte in BODIES[name][:500]:
        if handler.server.released.wait(0.02):
            return
        handler.wfile.write(bytes([byte]))


def endless(handler, name):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):  # 6.5 MB
        handler.wfile.write(bytes(2**16))


def bomb(handler, name):
    handler.answer(BOMB)


def no_http(handler, name):
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def redirect_loop(handler, name):
    handler.answer(b"", 302, Location=f"/{name}")


def redirect_to_file(handler, name):
    handler.answer(b"", 302, Location="file:///etc/hostname")


def redirect_to_ftp(handler, name):
    handler.answer(b"", 302, Location="ftp://127.0.0.1/x")


def redirect_to_nonsense(handler, name):
    handler.answer(b"", 302, Location="http://127.0.0.1:port/\x01")


def wrong_range(handler, name):
    if handler.headers.get("Range"):
        return handler.answer(BODIES[name], 206, Content_Range="bytes 0-9/10")
    return handler.answer(BODIES[name])


def ignores_range(handler, name):
    handler.answer(BODIES[name])


def packs_otherwise(handler, name):
    body = BODIES[name]  # the same with a file name in the gzip header: all after it is moved
    handler.answer_range(body[:3] + b"\x08" + body[4:10] + b"digits\0" + body[10:])


class Mirror(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, behave: Callable[[Handler, str], None]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.asked: list[tuple[str, str | None]] = []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/mnist/"
