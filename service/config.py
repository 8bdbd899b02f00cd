"""Every setting of the service, with its default and one sentence; flags derive from it.

Imports nothing heavy: the client and the command line read it too.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from jaxnn.errors import ConfigError

IMAGE_SHAPE = (28, 28)
IMAGE_BYTES = 784  # one uint8 image, row-major
MAX_MESSAGE_BYTES = 16 * 2**20
FRAME_BYTES = 1024  # kept free in a message for everything that is not an image

_POLICY = re.compile(r"all|latest:[1-9]\d{0,3}|named:\d+(,\d+)*")
_CANARY = re.compile(r"(?P<name>[^=:]+)=(?P<version>[^=:]+):(?P<percent>\d+(\.\d+)?)%")


class Canary(NamedTuple):
    """A version that gets a part of its model's requests, to be tried out."""

    name: str
    version: str
    share: float  # 0 to 1


@dataclass(frozen=True)
class ServiceConfig:
    """Settings of `jaxnn serve`."""

    model: Path | None = None
    """Model file to serve, or cnn or speech for one that comes with the package; mlp without it."""

    name: str = "digits"
    """Name of the model file, and of the model that answers requests which name none."""

    repository: Path | None = None
    """Folder of models to serve instead, NAME/VERSION/*.safetensors, VERSION a whole number."""

    versions: str = "latest:1"
    """Versions of each model in the repository to serve: latest:N, all, or named:1,3."""

    canary: tuple[str, ...] = ()
    """A version to try out on a part of its model's requests, as in digits=7:5%."""

    watch_s: float = 0.0
    """Seconds between two looks for changed model files; 0 looks only when asked (SIGHUP)."""

    model_control: bool = False
    """Let callers load and unload models; where tokens are asked for, those of administrators."""

    proof: float = 0.5
    """Part of a few stored digits that a model of ten classes must read before it may serve; one
    of speech has none to hear."""

    host: str = "127.0.0.1"
    """Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for all its networks."""

    port: int = 50051
    """TCP port to listen on; 0 picks a free one, which the line `listening on` names."""

    transport: Literal["grpcio", "lean"] = "grpcio"
    """What carries the calls: gRPC's own server, or a quicker one of this project."""

    workers: int = 1
    """Processes that serve the port together, each with all the models."""

    max_batch_size: int = 1024
    """Largest number of images computed together."""

    max_queue_size: int = 16384
    """Images that may wait; a request that does not fit is refused with RESOURCE_EXHAUSTED."""

    max_queue_delay_ms: float = 0.0
    """Milliseconds that images wait for others to share a batch; 0 starts as soon as it can."""

    inline_images: int = 4096
    """Requests up to this many images are computed on the event loop, at once, if none waits; an
    image that is tested for being a digit counts as eight, and one for a larger network as more."""

    max_images_per_request: int = 4096
    """Largest number of images in one request."""

    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Largest request in bytes, and largest decompressed one."""

    max_picture_bytes: int = 64 * 2**20
    """Bytes of pictures and recordings to be decoded that may wait at once."""

    max_metadata_bytes: int = 16 * 2**10
    """Largest metadata of one call in bytes."""

    max_streams: int = 256
    """Calls that one connection may have open at once."""

    max_calls: int = 4096
    """Calls that may be open at once in one process; more are refused with RESOURCE_EXHAUSTED."""

    max_connection_age_s: float = 300.0
    """Seconds after which a connection is asked to move on, so that load spreads; 0 never."""

    max_connection_age_grace_s: float = 30.0
    """Seconds after that for its calls to finish in."""

    min_ping_interval_s: float = 9.0
    """Clients may ping as often as this, with or without calls."""

    tls_certificate: Path | None = None
    """PEM file of the server's certificate chain; with it the server speaks TLS only."""

    tls_key: Path | None = None
    """PEM file of the certificate's private key."""

    tls_client_ca: Path | None = None
    """PEM file of the authorities whose clients may connect; without it any client may."""

    tokens: Path | None = None
    """TOML file of the tokens that callers must show, one of them with each call."""

    reflection: bool = True
    """Tell grpcurl and its like what is served."""

    metrics_host: str = "127.0.0.1"
    """Address of the metrics page."""

    metrics_port: int | None = None
    """TCP port of the metrics page http://HOST:PORT/metrics; 0 picks a free one; none without."""

    access_log: float = 0.0
    """Part of the answered calls that get a line of JSON on standard error, 0 to 1; the server's
    own faults always do, other failures unless it is 0."""

    tracing: str | None = None
    """Where to send OpenTelemetry traces, as in http://127.0.0.1:4317; needs jaxnn[tracing]."""

    tracing_share: float = 0.01
    """Part of the calls to trace, 0 to 1, where the caller has not decided."""

    shutdown_delay_s: float = 0.2
    """Seconds after SIGTERM or Ctrl-C to go on answering, while health says NOT_SERVING."""

    shutdown_grace_s: float = 10.0
    """Seconds after that for requests in flight to finish in; no new ones are taken."""

    def __post_init__(self) -> None:
        """Refuse what no server could run with.

        Raises:
          ConfigError: a setting is out of its range, or does not go with another.
        """
        for names, lowest, highest in _RANGES:
            for name in names.split():
                found = getattr(self, name)
                if found is not None and not lowest <= found <= highest:
                    limit = f"{lowest} to {highest}" if highest < math.inf else f"{lowest} or more"
                    raise ConfigError(f"{name} is {found}, expected {limit}")
        for name in ("watch_s", "max_connection_age_s", "shutdown_delay_s", "shutdown_grace_s"):
            if getattr(self, name) == math.inf:
                raise ConfigError(f"{name} is infinite, expected a number of seconds")
        if self.max_queue_size < self.max_images_per_request:
            raise ConfigError(
                f"max_queue_size is {self.max_queue_size}, expected at least "
                f"max_images_per_request, {self.max_images_per_request}"
            )
        if self.model and self.repository:
            raise ConfigError("model and repository exclude each other: name one of them")
        if not self.name:
            raise ConfigError("name is empty: give the model a name")
        if not _POLICY.fullmatch(self.versions):
            raise ConfigError(
                f"versions is {self.versions!r}, expected latest:N, all, or named:1,3"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("tls_certificate and tls_key belong together: name both or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ConfigError("tls_client_ca needs tls_certificate and tls_key: name all three")
        if self.workers > 1 and self.model_control:
            raise ConfigError(
                "model_control works in one process: with workers, change the repository's folder "
                "and send SIGHUP, or set watch_s"
            )
        self.canaries()

    def canaries(self) -> tuple[Canary, ...]:
        """The setting `canary`, read.

        Raises:
          ConfigError: it is not NAME=VERSION:SHARE%, or asks for more than all of a model.
        """
        found, total = [], dict[str, float]()
        for text in self.canary:
            match = _CANARY.fullmatch(text)
            if not match or float(match["percent"]) > 100:
                raise ConfigError(
                    f"canary is {text!r}, expected NAME=VERSION:SHARE%, as digits=7:5%"
                )
            name, share = match["name"], float(match["percent"]) / 100
            total[name] = total.get(name, 0) + share
            if total[name] > 1:
                raise ConfigError(f"the canaries of {name} take over 100 % together: give less")
            found.append(Canary(name, match["version"], share))
        return tuple(found)


_RANGES = (  # names, lowest, highest
    ("port metrics_port", 0, 65535),
    ("max_images_per_request max_batch_size max_queue_size", 1, 2**24),
    ("max_streams max_calls", 1, 2**20),
    ("inline_images", 0, 2**24),
    ("workers", 1, 256),
    ("max_message_bytes", IMAGE_BYTES + FRAME_BYTES, 2**31 - 1),
    ("max_picture_bytes", 1, 2**40),
    ("max_metadata_bytes", 1024, 2**24),
    ("proof access_log tracing_share", 0, 1),
    ("max_queue_delay_ms", 0, 60_000),
    ("min_ping_interval_s", 0.1, 3600),
    ("watch_s max_connection_age_s max_connection_age_grace_s", 0, math.inf),
    ("shutdown_delay_s shutdown_grace_s", 0, math.inf),
)


def address(host: str, port: int) -> str:
    """HOST:PORT as gRPC reads it: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
