"""A peer: ONNX Runtime behind grpc.aio, one request a run, in the API of protos/digits.proto.

    python -m benchmarks.onnx_server NETWORK.npz [--processes N]

It answers labels and scores alone, checks nothing and keeps no books: the least that such a server
does. Needs onnxruntime, onnx, numpy, grpcio and protobuf, uvloop where it is installed.
"""

import argparse
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.echo_server import Answer, serve
from benchmarks.load import messages
from service.pb import digits_pb2


def graph(arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The network as ONNX: uint8 [N, 784] -> labels int64 [N] and scores float32 [N, 10].

    Args:
      arrays: w0 [n_out, n_in], b0 [n_out], w1 and so on; every layer has a sigmoid.
    """
    constants = {**arrays, "w0": arrays["w0"] / np.float32(255)}  # white is 255 in a pixel
    nodes = [helper.make_node("Cast", ["pixels"], ["a"], to=TensorProto.FLOAT)]
    a = "a"
    for layer in count():
        if f"w{layer}" not in arrays:
            break
        nodes.append(
            helper.make_node("Gemm", [a, f"w{layer}", f"b{layer}"], [f"z{layer}"], transB=1)
        )
        a = f"a{layer}"
        nodes.append(helper.make_node("Sigmoid", [f"z{layer}"], [a]))
    nodes.append(helper.make_node("ArgMax", [a], ["labels"], axis=1, keepdims=0))
    value = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            nodes,
            "digits",
            [value("pixels", TensorProto.UINT8, ["N", 784])],
            [value("labels", TensorProto.INT64, ["N"]), value(a, TensorProto.FLOAT, ["N", 10])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def answers(network: Path) -> Answer:
    """A function: a ClassifyRequest's bytes -> its ClassifyResponse's."""
    with np.load(network, allow_pickle=False) as stored:
        model = graph({name: stored[name] for name in stored})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # two share the machine with the loop and its callers
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def answer(data: bytes) -> bytes:
        request = digits_pb2.ClassifyRequest.FromString(data)
        images = np.frombuffer(request.pixels, np.uint8).reshape(-1, 784)
        labels, scores = session.run(None, {"pixels": images})
        reply = digits_pb2.ClassifyResponse(
            classes=scores.shape[1], model_name="digits", model_version="1", id=request.id
        )
        # The arrays' own bytes are these fields on the wire (a label is below 128), and parts of
        # a message may follow each other: no number becomes a Python object.
        return b"".join(
            (
                messages.field(1, labels.astype(np.uint8).tobytes()),
                messages.field(2, scores.tobytes()),
                reply.SerializeToString(),
            )
        )

    return answer


def main() -> None:
    """Reads the flags and serves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    serve(partial(answers, options.network), options.processes)


if __name__ == "__main__":
    main()
