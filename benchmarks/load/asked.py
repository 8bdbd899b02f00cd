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
    labels: list[int]  # of the first one's images, by the shipped network


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
    found = {}
    for count in counts:
        paths = []
        for turn in range(DIFFERENT if count == 1 else 1):
            images = np.take(digits, range(turn, turn + count), axis=0, mode="wrap")
            path = folder / f"{api}-{count}-{turn}"
            path.write_bytes(messages.request(api, images))
            paths.append(path)
        first = np.take(digits, range(count), axis=0, mode="wrap")
        found[count] = Asked(tuple(paths), labels(network, first))
    return found


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


def check(name: str, target: str, api: str, questions: dict[int, Asked]) -> None:
    """Raises AssertionError where a server's labels are not those of the shipped network."""
    for count, asked in questions.items():
        found = messages.labels(api, reply(target, api, asked.requests[0]))
        assert found == asked.labels, f"{name} gives other labels to {count} images"
