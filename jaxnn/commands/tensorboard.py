"""TensorBoard event files of a run, through tensorboardX."""

from pathlib import Path
from typing import TYPE_CHECKING

from jaxnn.errors import ConfigError

if TYPE_CHECKING:
    from jaxnn.train import EpochReport


class EventLog:
    """Writes each epoch's figures; `tensorboard --logdir` shows them."""

    def __init__(self, folder: Path) -> None:
        """Opens a new event file in the folder, which is made.

        Raises:
          ConfigError: tensorboardX is not installed, or the folder cannot be made.
        """
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "--tensorboard needs tensorboardX: pip install 'jaxnn[tensorboard]'"
            ) from error
        try:
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise ConfigError(
                f"--tensorboard {folder} cannot be a folder of event files: {error.strerror}"
            ) from error

    def epoch(self, report: "EpochReport") -> None:
        """Writes one epoch's figures, so that they can be seen at once."""
        figures = {
            "cost/train": report.cost,
            "cost/held_out": report.held_out_cost,
            "accuracy/held_out": report.held_out_accuracy,
            "images_per_second": report.images_per_second,
        }
        for name, value in figures.items():
            self._writer.add_scalar(name, value, report.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()
