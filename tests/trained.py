"""A model file of each kind of network, trained for a moment on a few examples."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from voices import hummed

from jaxnn import checkpoint, data, recipes, train
from jaxnn.config import TrainConfig
from jaxnn.data import Dataset, speech, wav

COUNT = 16  # examples to learn from, and as many to measure on
MOMENT = {"epochs": 1, "batch_size": COUNT, "validation": 0}
CONFIGS = {
    "mlp": TrainConfig(sizes=(784, 4, 10), **MOMENT),
    "cnn": replace(recipes.STARTS["cnn"], architecture="tiny", **MOMENT),
    "rows": replace(recipes.STARTS["lstm"], sizes=(784, 3, 10), **MOMENT),
    "speech": replace(recipes.SPEECH, sizes=(1600, 3, 10), **MOMENT),
}
# Cut off while they are loud: silence would be cut off again.
WORDS = [hummed(at % 10, 0.15 + 0.08 * at)[: 600 + 480 * at] for at in range(COUNT)]
RECORDINGS = [wav.encode(word) for word in WORDS]
HEARD = np.stack([speech.prepare(wav.decode(file, "a word")) for file in RECORDINGS])
IMAGES = data.load("embedded").test_images[:COUNT].reshape(COUNT, 784)


def rows_for(name: str) -> np.ndarray:
    """What the network is asked about: uint8 [COUNT, n_in]."""
    return HEARD if name == "speech" else IMAGES


def save_trained(name: str, folder: Path) -> Path:
    """Train the network of a name, and save it as FOLDER/NAME/1/model.safetensors."""
    config, rows = CONFIGS[name], rows_for(name)
    labels = np.arange(COUNT, dtype=np.uint8) % 10
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in int32
        state = train.fit(config, Dataset(rows, labels, rows, labels))
    path = folder / name / "1" / "model.safetensors"
    checkpoint.save(path, state.params, train.spec_of(config))
    return path
