"""`jaxnn serve`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.config import ServiceConfig


@dataclass(frozen=True)
class Serve:
    """Serve models over gRPC until SIGTERM or Ctrl-C.

    Settings come from flags, before these from JAXNN_SERVE_... in the environment, before these
    from the file of --config.
    """

    settings: ServiceConfig = field(default_factory=ServiceConfig)
    config: Path | None = None
    """TOML file of settings, a line each: max_batch_size = 256."""
    print_config: bool = False
    """Print all settings as such a file, and end."""
    new_token: str | None = None
    """Make a token for a caller of this name, print it with its lines of the file, and end."""
    no_cache: bool = False
    """Compile anew, and keep nothing compiled for the next time."""

    def run(self, argv: list[str]) -> None:
        """Prints `listening on HOST:PORT` when ready."""
        if self.new_token is not None:
            from service.token_file import new_token

            token, lines = new_token(self.new_token)
            print(f"# the token, shown this once: {token}\n{lines}", end="")
            return
        config = replace(self.settings)  # checked as a whole, now that all its parts are here
        if self.print_config:
            from service.settings import printed

            print(printed(config), end="")
            return
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self.no_cache:
            os.environ["JAXNN_CACHE"] = "off"
        if config.workers > 1:
            from service import workers

            workers.supervise(config)
            return
        from jaxnn import compile_cache

        compile_cache.enable()
        from service import server

        server.serve(config)


def configured(argv: Sequence[str], environ: Mapping[str, str]) -> Serve:
    """The command as its settings' file and the environment have it; flags then change it.

    Raises:
      ConfigError: the file cannot be read, or there is no such setting or value.
    """
    from service import settings

    return Serve(settings.base(ServiceConfig, argv, environ))


# Of XLA, NumPy and gRPC, read when they are imported.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # its threads wait badly beside XLA's
    "GRPC_VERBOSITY": "NONE",  # a line for each failed handshake would fill the log
    "NPROC": "1",  # one thread for XLA: a batch is too small to be worth handing round
}
