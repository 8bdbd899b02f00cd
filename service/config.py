"""Every setting of the service, with its default and one sentence; flags derive from it.

Imports nothing heavy: the client and the command line read it too.
"""

from dataclasses import dataclass
from pathlib import Path

from jaxnn.errors import ConfigError

IMAGE_SHAPE = (28, 28)
IMAGE_BYTES = 784  # one uint8 image, row-major
MAX_MESSAGE_BYTES = 16 * 2**20
FRAME_BYTES = 1024  # kept free in a message for everything that is not an image


@dataclass(frozen=True)
class ServiceConfig:
    """Settings of `jaxnn serve`."""

    model: Path | None = None
    """Model file to serve; the one that comes with the package where none is named."""

    name: str = "digits"
    """Name under which the model answers."""

    host: str = "127.0.0.1"
    """Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for all its networks."""

    port: int = 50051
    """TCP port to listen on; 0 picks a free one, which the line `listening on` names."""

    max_images_per_request: int = 4096
    """Largest number of images in one request."""

    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Largest request in bytes."""

    shutdown_delay_s: float = 0.2
    """Seconds after SIGTERM or Ctrl-C to go on answering, while health says NOT_SERVING."""

    shutdown_grace_s: float = 10.0
    """Seconds after that for requests in flight to finish in; no new ones are taken."""

    def __post_init__(self) -> None:
        """Refuse what no server could run with.

        Raises:
          ConfigError: a setting is out of its range.
        """
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}, expected 0 to 65535")
        if self.max_images_per_request < 1:
            raise ConfigError(
                f"max_images_per_request is {self.max_images_per_request}, expected 1 or more"
            )
        if not IMAGE_BYTES + FRAME_BYTES <= self.max_message_bytes < 2**31:
            raise ConfigError(
                f"max_message_bytes is {self.max_message_bytes}, expected "
                f"{IMAGE_BYTES + FRAME_BYTES} (one image) to {2**31 - 1}"
            )
        for name in ("shutdown_delay_s", "shutdown_grace_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more")


def address(host: str, port: int) -> str:
    """HOST:PORT as gRPC reads it: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
