"""What the servers are asked, the network that answers, and whether they answer right."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np

from benchmarks.load import messages

DIFFERENT = 8  # requests of one image that take turns
ANSWER = 30.0  # seconds for a server's first answer


class Asked(NamedTuple):
    """Requests with the same number of images."""

    requests: tuple[Path, ...]  # files, one serialized request each
    labels: list[int]  # of the first one's images, by the network


def store(path: Path) -> dict[str, Any]:
    """The shipped network, also written as an .npz file for peers, which have no jaxnn.

    Returns:
      w0 [n_out, n_in] float32, b0 [n_out] and so on; every layer has a sigmoid.
    """
    from jaxnn import checkpoint

    file = checkpoint.load(checkpoint.SHIPPED)
    assert file.spec.family == "mlp", "the peers know no other"
    assert file.spec.activation == file.spec.output == "sigmoid", "the peers know no other"
    arrays: dict[str, Any] = {}
    for layer, (w, b) in enumerate(file.params):
        arrays[f"w{layer}"], arrays[f"b{layer}"] = np.asarray(w), np.asarray(b)
    np.savez(path, **arrays)
    return arrays


def written(
    api: str, counts: Iterable[int], network: dict[str, np.ndarray], folder: Path
) -> dict[int, Asked]:
    """Requests of the embedded test digits in an API, by the number of images in each."""
    from jaxnn import data

    digits = data.load("embedded").test_images.reshape(-1, 784)
    return questions(api, counts, digits, labels(network, digits), folder)


def questions(
    api: str,
    counts: Iterable[int],
    rows: np.ndarray,
    expected: list[int],
    folder: Path,
    at: int = messages.PIXELS,
) -> dict[int, Asked]:
    """Requests of rows in an API, by the number of rows in each.

    Args:
      api: of `messages`.
      counts: rows in a request; more than there are begin again.
      rows: uint8 [N, n_in].
      expected: the label of each.
      folder: where the requests are written.
      at: the field of jaxnn.v1 that rows come in.
    """
    found = {}
    for count in counts:
        paths = []
        for turn in range(DIFFERENT if count == 1 else 1):
            some = np.take(rows, range(turn, turn + count), axis=0, mode="wrap")
            path = folder / f"{api}-{count}-{turn}"
            path.write_bytes(messages.request(api, some, at))
            paths.append(path)
        found[count] = Asked(tuple(paths), np.take(expected, range(count), mode="wrap").tolist())
    return found


def rows(kind: Any, count: int) -> np.ndarray:
    """Rows uint8 [count, n_in] to ask a model: embedded test digits, or made-up speech.

    Time depends on the lengths of recordings, not on what they say: bytes are drawn at random, and
    lengths as those of the Free Spoken Digit Dataset are spread, 17.7 +- 4.9 of 40 steps.

    Args:
      kind: a `service.inputs.Kind`.
      count: how many; digits begin again where there are no more.
    """
    if kind.name == "images":
        from jaxnn import data

        digits = data.load("embedded").test_images.reshape(-1, 784)
        return np.take(digits, range(count), axis=0, mode="wrap")
    steps, bands = kind.shape
    draw = np.random.default_rng(0)
    lengths = np.clip(np.rint(draw.normal(17.7, 4.9, count)), 1, steps)
    found = draw.integers(1, 256, (count, steps, bands), np.uint8)
    found[np.arange(steps) >= lengths[:, None]] = 0
    return found.reshape(count, -1)


def labels(network: dict[str, np.ndarray], images: np.ndarray) -> list[int]:
    """The network's labels [N] of images uint8 [N, 784]."""
    a = images / np.float32(255)
    for layer in range(len(network) // 2):
        a = 1 / (1 + np.exp(-(a @ network[f"w{layer}"].T + network[f"b{layer}"])))
    return a.argmax(axis=1).tolist()


def reply(target: str, api: str, request: Path) -> bytes:
    """A server's reply, as soon as it gives one.

    Raises:
      grpc.RpcError: it gives none in time.
    """
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0),
    ]
    until = time.monotonic() + ANSWER
    with grpc.insecure_channel(target, options) as channel:
        call = channel.unary_unary(messages.METHODS[api])
        while True:
            try:
                return call(request.read_bytes(), timeout=ANSWER, wait_for_ready=True)
            except grpc.RpcError:  # one that listens before its model is there
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


def check(name: str, target: str, api: str, given: dict[int, Asked]) -> None:
    """Raises AssertionError where a server's labels are not those that are expected."""
    for count, asked in given.items():
        found = messages.labels(api, reply(target, api, asked.requests[0]))
        assert found == asked.labels, f"{name} gives other labels to {count} images"
