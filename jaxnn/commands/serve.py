"""`jaxnn serve`."""

import os
from dataclasses import dataclass, field

from service.config import ServiceConfig


@dataclass(frozen=True)
class Serve:
    """Serve a model over gRPC until SIGTERM or Ctrl-C."""

    config: ServiceConfig = field(default_factory=ServiceConfig)
    no_cache: bool = False
    """Compile anew, and keep nothing compiled for the next time."""

    def run(self, argv: list[str]) -> None:
        """Prints `listening on HOST:PORT` when ready."""
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait badly beside XLA's
        from jaxnn import compile_cache

        if not self.no_cache:
            compile_cache.enable()
        from jaxnn import checkpoint
        from service import server

        server.serve(self.config, self.config.model or checkpoint.SHIPPED)
