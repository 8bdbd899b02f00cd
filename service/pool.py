"""A descriptor pool of our own for the messages of both APIs.

Protobuf's default pool takes each name once in a process, and clients of the Open Inference
Protocol (tritonclient, kserve, mlserver) put their own copies of `inference.*` there. In a pool
apart, ours stands beside them, whichever is imported first. scripts/generate_protos.py makes the
generated code use it.
"""

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()


def describing(*files: FileDescriptor) -> DescriptorPool:
    """The pool, once it also knows files of the default pool: what reflection answers from.

    Args:
      files: of services that the server has beside its own, such as health; they import no others.
    """
    for file in files:
        POOL.AddSerializedFile(file.serialized_pb)
    return POOL
