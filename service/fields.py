"""Large fields of a message without a copy: protobuf would make two of each."""

MAX_FIELDS = 64  # looked at; messages of more are left to protobuf
_BYTES = 2  # the wire type of bytes, strings and messages
_FIXED = {1: 8, 5: 4}  # wire types of a fixed number of bytes


def split(data: bytes, field: int) -> tuple[bytes, list[memoryview]]:
    """Takes a bytes field out of a message.

    Whether the rest is right is for protobuf to say: a message that is not understood here comes
    back whole. The wire format is described at protobuf.dev/programming-guides/encoding.

    Args:
      data: a message.
      field: the number of the field.

    Returns:
      The message without the field, and the field's values in order: views of `data`.
    """
    view, tag = memoryview(data), field << 3 | _BYTES
    kept: list[memoryview] = []
    found: list[memoryview] = []
    at = after = 0  # where the next field begins; the end of the last one found
    try:
        for _ in range(MAX_FIELDS):
            if at == len(data):
                return b"".join([*kept, view[after:]]), found
            begin = at
            key, at = _varint(data, at)
            kind = key & 7
            if kind == _BYTES:
                length, at = _varint(data, at, longest=5)  # as protobuf has it
                end = at + length
            elif kind == 0:
                _, end = _varint(data, at)
            else:
                end = at + _FIXED[kind]
            if key == tag:
                kept.append(view[after:begin])
                found.append(view[at:end])
                after = end
            at = end
    except (IndexError, KeyError):  # a field goes on after the end, or is of another kind
        pass
    return data, []


def _varint(data: bytes, at: int, longest: int = 10) -> tuple[int, int]:
    """The number of variable length at a place, and where it ends.

    Raises:
      IndexError: it does not end, or is longer.
    """
    number = 0
    for shift in range(0, 7 * longest, 7):
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise IndexError
