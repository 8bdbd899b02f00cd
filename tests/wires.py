"""What a transport knows of a call, for tests without one."""

from collections.abc import Iterable


class Wire:
    """A call with this metadata, from this machine, without a deadline."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.metadata = metadata

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return self.metadata

    def time_remaining(self) -> float | None:
        return None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"
