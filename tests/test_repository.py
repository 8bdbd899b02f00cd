"""Model files that cannot be served."""

from pathlib import Path

import jax
import pytest

from jaxnn import checkpoint, mlp
from jaxnn.errors import CheckpointError, ConfigError
from jaxnn.models import Spec
from service.repository import load_model


def test_a_model_of_other_pictures_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    spec = Spec(sizes=(4, 10))
    path = tmp_path / "small.safetensors"
    checkpoint.save(path, mlp.init(jax.random.key(0), spec.sizes), spec)
    with pytest.raises(ConfigError, match="takes 4 inputs, expected 784"):
        load_model(path, "digits")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path / "none", "digits")
