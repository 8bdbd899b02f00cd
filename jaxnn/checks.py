"""Whether settings can be, and fit the data: asked once, before training begins."""

import math
from typing import get_args, get_type_hints

import numpy as np

from jaxnn import models
from jaxnn.config import TrainConfig
from jaxnn.data import Dataset
from jaxnn.epoch import spec_of
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.optimizers import check_optimizer


def check(config: TrainConfig, data: Dataset) -> None:
    """Raises ConfigError where a setting cannot be, or ShapeError where the data cannot."""
    _check_data(data)
    largest = int(max(data.train_labels.max(), data.test_labels.max()))
    check_settings(config, len(data.train_images), data.train_images[0].size, largest)


def check_settings(config: TrainConfig, images: int, pixels: int, largest: int) -> None:
    """Raises ConfigError where a setting cannot be, or does not fit the data.

    Args:
      config: the settings.
      images: in the training set.
      pixels: in an image.
      largest: the largest label.
    """
    models.build(spec_of(config))
    check_optimizer(config)
    ranges: dict[str, tuple[float, float | None]] = {
        "validation": (0, images - 1),
        "epochs": (0, None),
        "batch_size": (1, images - config.validation),
        "shift": (0, 13),  # further, and digits leave the picture
        "rotate": (0, 180),
        "scale": (0, 0.9),
        "shear": (0, 1),
        "elastic": (0, 13),
        "fade": (0, 1),
        "seed": (0, 2**32 - 1),
        "shuffle_seed": (0, 2**32 - 1),
        "l2": (0, None),
        "devices": (0, config.batch_size),
        "teacher_weight": (0, 1),
    }
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if value is None:
            continue
        if not value >= least or (most is not None and value > most):
            limit = f"{least} or more" if most is None else f"{least} to {most}"
            raise ConfigError(f"{name} is {value}, expected {limit} with {images} images")
    if config.devices > 1 and config.batch_size % config.devices:
        raise ConfigError(
            f"devices is {config.devices}, and batch_size {config.batch_size} no multiple of it: "
            "each device takes an equal part"
        )
    if config.momentum is not None and not 0 <= config.momentum < 1:
        raise ConfigError(f"momentum is {config.momentum}, expected 0 or more, and below 1")
    if not np.isfinite(config.l2):
        raise ConfigError(f"l2 is {config.l2}, expected a number")
    if not (np.isfinite(config.learning_rate) and config.learning_rate > 0):
        raise ConfigError(f"learning_rate is {config.learning_rate}, expected a positive number")
    if not (np.isfinite(config.teacher_temperature) and config.teacher_temperature > 0):
        raise ConfigError(
            f"teacher_temperature is {config.teacher_temperature}, expected a positive number"
        )
    for name in ("teacher_weight", "teacher_temperature", "teacher_checksum"):
        if not config.teacher and getattr(config, name) != getattr(TrainConfig, name):
            raise ConfigError(
                f"{name} is {getattr(config, name)}, but no teacher is named: name one"
            )
    for name in ("gradient", "schedule"):
        known = get_args(get_type_hints(TrainConfig)[name])
        if getattr(config, name) not in known:
            raise ConfigError(f"{name} is {getattr(config, name)!r}: choose {' or '.join(known)}")
    changes = (config.rotate, config.scale, config.shear, config.elastic)
    if (config.shift or any(changes)) and math.isqrt(pixels) ** 2 != pixels:
        raise ConfigError(f"an image has {pixels} pixels: only square images can be changed")
    if config.fade and not any(changes):
        raise ConfigError("fade weakens turns, stretches, slants and bends: ask for one of them")
    if config.sizes[0] != pixels:
        raise ConfigError(f"sizes begin with {config.sizes[0]}, but an image has {pixels} pixels")
    if config.sizes[-1] <= largest:
        raise ConfigError(f"sizes end with {config.sizes[-1]}, but labels go up to {largest}")


def _check_data(data: Dataset) -> None:
    for images, labels in (data[:2], data[2:]):
        if images.dtype != np.uint8 or not np.issubdtype(labels.dtype, np.integer):
            raise ShapeError(
                f"images are {images.dtype} and labels {labels.dtype}, expected uint8 and integers"
            )
        if len(images) != len(labels) or len(images) == 0 or labels.min() < 0:
            raise ShapeError(
                f"{len(images)} images with {len(labels)} labels: one each, none below 0"
            )
