"""Networks of every family behind the service, and those that come with the package."""

from pathlib import Path

import jax
import numpy as np
import pytest
from serving import serve_sync

from jaxnn import answers, checkpoint, data, metrics, models, ready_made
from jaxnn.models import Spec
from service.client import DigitClient
from service.repository import load_model

CNN = Spec("cnn", (784, 10), "tanh", "softmax", "cross_entropy", architecture="tiny")
ROWS = Spec("lstm", (784, 3, 10), "tanh", "softmax", "cross_entropy", architecture="rows")


@pytest.mark.parametrize("spec", [CNN, ROWS], ids=lambda spec: spec.family)
def test_a_model_of_each_family_is_served(spec: Spec, tmp_path: Path) -> None:
    """Saved, read again, compiled for serving, and asked over the network."""
    params = jax.jit(models.build(spec).init)(jax.random.key(3))
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, params, spec)
    model = load_model(path, "other", buckets=(1, 8))
    images = data.load("embedded").test_images[:11]
    plain = answers.answer(model.file, images)

    def scenario(target: str) -> None:
        with DigitClient(target) as client:
            found = client.classify(images)
            assert client.model("other").family == spec.family
        assert found.labels.tolist() == plain.labels.tolist()
        assert np.abs(found.scores - plain.scores).max() < 2e-5

    serve_sync(model, scenario)


@pytest.mark.parametrize("name", ready_made.NAMES)
def test_networks_that_come_with_the_package(name: str, tmp_path: Path) -> None:
    path = ready_made.path_of(Path(name))
    assert path.stat().st_size < 250_000
    file = checkpoint.load(path)
    assert file.spec.family == {"speech": "lstm"}.get(name, name)
    assert (file.familiar is None) == (name == "speech")
    own = tmp_path / "cnn"
    assert ready_made.path_of(own) == own


def test_the_second_network_reads_digits() -> None:
    """Digits that it was trained on, as the first network was; docs/accuracy.md has the others."""
    dataset = data.load("embedded")
    images, labels = dataset.test_images[::4], dataset.test_labels[::4]
    right = {}
    for name in ("mlp", "cnn"):
        file = checkpoint.load(ready_made.path_of(Path(name)))
        model = models.build(file.spec)
        right[name] = metrics.evaluate(file.params, images, labels, model=model).accuracy
    assert right["cnn"] > 0.99
    assert right["cnn"] > right["mlp"]
