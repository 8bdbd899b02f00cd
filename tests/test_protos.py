"""The generated code is what the protos generate, and keeps to a pool of its own."""

import importlib.util
import subprocess
import sys

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._base import BaseReflectionServicer
from serving import LIMIT_S, ROOT

from scripts.generate_protos import with_own_pool
from service import pool
from service.pb import digits_pb2, open_inference_grpc_pb2

GENERATED = (digits_pb2, open_inference_grpc_pb2)


@pytest.mark.skipif(
    importlib.util.find_spec("grpc_tools") is None, reason="grpcio-tools is not installed"
)
def test_the_generated_code_matches_the_protos() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_protos.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", GENERATED)
def test_no_message_is_in_the_default_pool(module: object) -> None:
    file = module.DESCRIPTOR
    assert file.pool is pool.POOL is not descriptor_pool.Default()
    for message in file.message_types_by_name.values():
        assert message.file.pool is pool.POOL
        # Fields of messages point at our own copies, too.
        for field in message.fields:
            assert not field.message_type or field.message_type.file.pool is pool.POOL


def test_generated_code_that_is_not_as_expected_is_not_passed_on() -> None:
    good = (ROOT / "service/pb/digits_pb2.py").read_text()
    with pytest.raises(ValueError, match="0 times, expected once"):
        with_own_pool(good)  # it has been through already


def test_reflection_finds_every_service_in_our_pool() -> None:
    described = pool.describing(health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    assert pool.describing(health_pb2.DESCRIPTOR) is described, "twice does no harm"
    services = {
        "jaxnn.v1.DigitClassifier": "service/pb/digits.proto",
        "inference.GRPCInferenceService": "service/pb/open_inference_grpc.proto",
        "grpc.health.v1.Health": health_pb2.DESCRIPTOR.name,
        "grpc.reflection.v1alpha.ServerReflection": reflection_pb2.DESCRIPTOR.name,
    }
    servicer = BaseReflectionServicer(services, described)
    for service, name in services.items():
        found = servicer._file_containing_symbol(None, service).file_descriptor_response
        (serialized,) = found.file_descriptor_proto
        assert FileDescriptorProto.FromString(serialized).name == name
