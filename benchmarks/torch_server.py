"""Our server, with the same network in PyTorch where the compiled program of jaxnn would be.

    python -m benchmarks.torch_server [FLAGS OF jaxnn serve]

Process, transport, handlers, data plane and batcher are those of `jaxnn serve`; of a model's file
the predictor alone is another: the file's parameters in PyTorch's own modules, in inference mode, a
batch of any size in one call. No server listens before its scores are those of jaxnn.

NPROC in the environment says how many threads compute, to PyTorch here as to XLA in `jaxnn serve`;
1 where it is not set, as there.
"""

import os
import sys
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.load import asked
from benchmarks.torch_networks import network
from jaxnn import cli, compile_cache
from jaxnn.checkpoint import ModelFile
from jaxnn.errors import CheckpointError
from service import process, server
from service.config import ServiceConfig, address
from service.predictor import BUCKETS, LARGER, Predictor, scores
from service.repository import Found, ServedModel, load_model

TOLERANCE = 1e-4  # between our scores and PyTorch's
COMPARED = 100  # rows


class TorchPredictor(Predictor):
    """The answers of `service.predictor.Predictor`, by PyTorch; rejects nothing."""

    def __init__(self, file: ModelFile) -> None:
        """Build the network, and find out how slow it is, as the other does.

        Raises:
          ConfigError: a network that is not built here.
        """
        self.inputs, self.classes = file.spec.sizes[0], file.spec.sizes[-1]
        self.compile_count = 0
        self._network = network(file.spec, file.params)
        self._temperature = file.temperature
        softmax = partial(torch.softmax, dim=1)
        self._output = softmax if file.spec.output == "softmax" else torch.sigmoid
        self.weight = self._weighed(BUCKETS[-1] if file.spec.family == "mlp" else LARGER)

    def __call__(self, images: np.ndarray, rejection: bool = True) -> np.ndarray:
        """float32 [N, classes + 3] for images uint8 [N, inputs]: see the other."""
        with torch.inference_mode():
            z = self._network(torch.from_numpy(images))
            found = self._output(z)
            label = found.argmax(1, keepdim=True)
            # Scores are a softmax of z, or z are their log-odds: either way it is this.
            confidence = torch.softmax(z / self._temperature, 1).amax(1, keepdim=True)
            return torch.cat([found, label, confidence, torch.zeros_like(confidence)], 1).numpy()


def load(found: Found, proof: float) -> ServedModel:
    """A model file, proven as ever, with PyTorch's predictor in place of the compiled one.

    Raises:
      CheckpointError, ConfigError: as `service.repository.load_model`, or PyTorch answers
        otherwise.
    """
    model = load_model(
        found.path, found.name, found.version, proof=proof, buckets=(COMPARED,)
    )  # that one bucket is all that is asked
    peer = TorchPredictor(model.file)
    compare(peer, model)
    return replace(model, predictor=peer, weight=peer.weight)


def compare(peer: Predictor, model: ServedModel) -> None:
    """Raises CheckpointError where scores differ by TOLERANCE or more."""
    rows = asked.rows(model.takes, COMPARED)
    apart = np.abs(scores(peer(rows)) - scores(model.predictor(rows, False))).max()
    if not apart < TOLERANCE:  # NaN is not, either
        raise CheckpointError(
            f"PyTorch's scores are {apart:.2g} from jaxnn's, expected less than {TOLERANCE:g}: "
            "the network is not the same"
        )


async def _serve(config: ServiceConfig) -> None:
    """As `service.server.serve` does."""
    signals = process.Signals()
    async with server.running_server(config, partial(load, proof=config.proof)) as running:
        signals.serving(running.look_again)
        print(f"listening on {address(config.host, running.port)}", flush=True)
        await signals.stop.wait()


def main() -> None:
    """Reads the flags and serves."""
    torch.set_num_threads(int(os.environ.setdefault("NPROC", "1")))
    # Requests are read in place, and nothing is written.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    command = cli.parse(["serve", *sys.argv[1:]])
    compile_cache.enable()
    process.prepare()
    process.run(_serve(command.settings))


if __name__ == "__main__":
    main()
