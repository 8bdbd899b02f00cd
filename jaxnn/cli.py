"""The command `jaxnn`: parses, runs one command, turns errors into a sentence and an exit code.

Exit codes: 0 done, 1 the input was good but the run failed, 2 bad input. Commands import what
they need when they run, so that help is instant.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from jaxnn.commands.bench_serve import BenchServe
from jaxnn.commands.classify import Classify
from jaxnn.commands.data import Data
from jaxnn.commands.demo import Demo
from jaxnn.commands.descend import Descend
from jaxnn.commands.evaluate import Eval
from jaxnn.commands.explain import Explain, full_spelling
from jaxnn.commands.gradcheck import Gradcheck
from jaxnn.commands.info import Info
from jaxnn.commands.listen import Listen
from jaxnn.commands.plot import Plot
from jaxnn.commands.read import Read
from jaxnn.commands.serve import Serve, configured
from jaxnn.commands.sweep import Sweep
from jaxnn.commands.train import Train
from jaxnn.errors import JaxnnError

COMMANDS: dict[str, Callable[..., Any]] = {
    "train": Train,
    "sweep": Sweep,
    "eval": Eval,
    "classify": Classify,
    "read": Read,
    "listen": Listen,
    "serve": Serve,
    "bench-serve": BenchServe,
    "data": Data,
    "info": Info,
    "explain": Explain,
    "plot": Plot,
    "descend": Descend,
    "gradcheck": Gradcheck,
    "demo": Demo,
}


def parse(argv: Sequence[str]) -> Any:
    """The command that a command line names, as an instance of its dataclass."""
    if argv[:1] == ["explain"]:
        argv = ["explain", *full_spelling(argv[1:])]
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    if argv[:1] == ["serve"]:
        default = configured(argv, os.environ)
        return tyro.cli(Serve, prog="jaxnn serve", args=argv[1:], default=default, config=config)
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="jaxnn",
        description="The small neural network that everyone meets first: train, look, serve.",
        args=list(argv),
        config=config,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if "--version" in argv[:1]:
        from jaxnn import __version__

        print(f"jaxnn {__version__}")
        return 0
    try:
        parse(argv or ["--help"]).run(list(argv))
        if sys.stdout:
            sys.stdout.flush()
    except JaxnnError as error:
        print(f"jaxnn: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _discard_output()
    except (OSError, MemoryError, RuntimeError) as error:  # a full disk, too large a network
        print(
            f"jaxnn: the run failed: {(str(error) or 'no memory').splitlines()[0]}", file=sys.stderr
        )
        _discard_output()
        return 1
    return 0


def _discard_output() -> None:
    """What is still to be written can go nowhere: Python must not try again at its end."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
