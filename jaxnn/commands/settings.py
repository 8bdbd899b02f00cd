"""Settings as a command line gives them, before JAX is loaded."""

import dataclasses
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnn.commands.record import Record
from jaxnn.config import TrainConfig
from jaxnn.errors import ConfigError

THREADS_PAY_FROM = 10_000_000  # multiplications; measured on 2 cores


def largest_product(config: TrainConfig) -> int:
    """Multiplications in a step's largest matrix product."""
    pairs = itertools.pairwise(config.sizes)
    return config.batch_size * max((n_in * n_out for n_in, n_out in pairs), default=0)


def choose_threads(multiplications: int) -> None:
    """One thread where a step's largest product is small, unless the environment says otherwise.

    XLA and OpenBLAS read it when JAX and NumPy are loaded: a second thread costs such a small
    network more in waking up than it computes (benchmarks/epoch.py measures both), and NumPy's
    sums depend on how many there are.
    """
    if multiplications < THREADS_PAY_FROM:
        os.environ.setdefault("NPROC", "1")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def devices_of(config: TrainConfig) -> int:
    """How many devices take part: as `devices` says, or what suits the network and the machine.

    A cnn's or lstm's steps are many operations, each too small for two cores to share: see
    jaxnn/spread.py. Where the environment says how JAX is to see the processor, that stands.
    """
    said = {"NPROC", "JAX_NUM_CPU_DEVICES"} & os.environ.keys()
    if config.devices or config.family == "mlp" or said or _host_devices_forced():
        return config.devices
    return 2 if _cores() > 1 and config.batch_size % 2 == 0 else 0


def provide_devices(count: int) -> None:
    """Lets JAX, not loaded yet, see the processor as that many devices, which share its cores."""
    if count > 1 and not _host_devices_forced():
        os.environ.setdefault("NPROC", str(max(1, _cores() // count)))
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(count))


def _host_devices_forced() -> bool:
    return "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reparsed(command: Any, argv: Sequence[str], default: TrainConfig) -> Any:
    """The settings of a command (its class), changed by the flags that were really given.

    Args:
      command: a dataclass with the settings as its field config.
      argv: the command line, the command's name first.
      default: the settings to begin with.
    """
    import tyro

    return tyro.cli(
        command,
        default=command(config=default),
        args=argv[1:],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    ).config


def check_targets(out: Path | None, json_target: str | None) -> None:
    """Raises ConfigError where --out is a file, or --json a folder."""
    for name, path in (("out", out), ("json", json_target)):
        if path and Path(path).exists() and Path(path).is_dir() != (name == "out"):
            raise ConfigError(
                f"--{name} {path} is a {'file' if name == 'out' else 'folder'}, "
                f"expected a {'folder' if name == 'out' else 'file'}"
            )


def check_resumed(folder: Path, record: Record, after: TrainConfig, stream: bool) -> None:
    """Raises ConfigError where a run cannot go on as the command line asks.

    Args:
      folder: the run's.
      record: of the run.
      after: its settings, changed by the command line.
      stream: whether the images are to be read in chunks.
    """
    before = record.config
    free = {"epochs", "teacher"}  # a teacher may have moved: its checksum tells which one it is
    for name, value in dataclasses.asdict(before).items():
        if name not in free and getattr(after, name) != value:
            raise ConfigError(
                f"the run in {folder} has {name} {json.dumps(value)}, not "
                f"{json.dumps(getattr(after, name))}: only --epochs may change on --resume"
            )
    fixed = "a cosine schedule" if before.schedule != "constant" else "changes that fade"
    if after.epochs != before.epochs and (before.schedule != "constant" or before.fade):
        raise ConfigError(
            f"the run in {folder} has {fixed} over {before.epochs} epochs: "
            "its length cannot change on --resume"
        )
    if stream != record.stream:
        was, do = ("with", "give it, too") if record.stream else ("without", "leave it out")
        raise ConfigError(
            f"the run in {folder} was made {was} --stream, which shuffles in another way: {do} "
            "on --resume"
        )
    done = record.progress["epoch"]
    if done > after.epochs:
        raise ConfigError(
            f"{folder} has {done} epochs, --epochs is {after.epochs}: ask for at least as many"
        )
