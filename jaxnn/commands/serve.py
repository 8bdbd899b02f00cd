"""`jaxnn serve`."""

from dataclasses import dataclass, field

from service.config import ServiceConfig


@dataclass(frozen=True)
class Serve:
    """Serve a model over gRPC until SIGTERM or Ctrl-C."""

    config: ServiceConfig = field(default_factory=ServiceConfig)

    def run(self, argv: list[str]) -> None:
        """Prints `listening on HOST:PORT` when ready."""
        from jaxnn import checkpoint
        from service import server

        server.serve(self.config, self.config.model or checkpoint.SHIPPED)
