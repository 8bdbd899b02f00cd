"""A peer: MLServer with a runtime of the same network in NumPy, by the Open Inference Protocol.

    python -m benchmarks.mlserver_server NETWORK.npz [--processes N]

MLServer without its metrics and its debug log, and for one process without its pool of workers,
which is its fastest way here. Images come as BYTES, since MLServer makes a Python number of each
element of a tensor: 6 times as fast as UINT8 at 128 images. Needs mlserver alone.
"""

import argparse
import asyncio
import socket
from itertools import count

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Network(MLModel):
    """Sigmoid layers; the parameters' URI is an .npz file with w0 [n_out, n_in], b0 and so on."""

    async def load(self) -> bool:
        """Reads the arrays."""
        with np.load(self.settings.parameters.uri, allow_pickle=False) as stored:
            self._layers = []
            for layer in count():
                if f"w{layer}" not in stored:
                    break
                self._layers.append((stored[f"w{layer}"].T.copy(), stored[f"b{layer}"]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Labels and scores of the one input: BYTES [N], the 784 pixels of an image each."""
        pixels = np.frombuffer(b"".join(payload.inputs[0].data.root), np.uint8)
        a = pixels.reshape(-1, 784) / np.float32(255)
        for w, b in self._layers:
            a = 1 / (1 + np.exp(-(a @ w + b)))
        labels = a.argmax(axis=1)
        outputs = [
            ResponseOutput(name="labels", datatype="INT64", shape=[len(a)], data=labels.tolist()),
            ResponseOutput(
                name="scores", datatype="FP32", shape=list(a.shape), data=a.ravel().tolist()
            ),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def serve(network: str, processes: int) -> None:
    """Serves until a signal ends it."""
    with socket.socket() as free, socket.socket() as other:
        free.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        grpc_port, http_port = free.getsockname()[1], other.getsockname()[1]
    settings = Settings(
        host="127.0.0.1",
        grpc_port=grpc_port,
        http_port=http_port,
        grpc_max_message_length=-1,
        parallel_workers=0 if processes == 1 else processes,
        metrics_endpoint=None,
        debug=False,
    )
    model = ModelSettings(
        name="digits", implementation=Network, parameters=ModelParameters(uri=network)
    )
    print(f"listening on 127.0.0.1:{grpc_port}", flush=True)  # soon: callers have to try
    await MLServer(settings).start([model])


def main() -> None:
    """Reads the flags and serves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(serve(options.network, options.processes))


if __name__ == "__main__":
    main()
