"""Networks of every family behind the service, and those that come with the package."""

from pathlib import Path

import numpy as np
import pytest
import trained
from serving import serve_sync

from jaxnn import answers, checkpoint, data, metrics, models, ready_made
from service.client import DigitClient
from service.repository import load_model


@pytest.mark.parametrize("name", ["cnn", "rows", "speech"])  # an mlp: docs/serving.md
def test_a_model_of_each_family_is_served(name: str, tmp_path: Path) -> None:
    """Trained, saved, read again, compiled for serving, and asked over the network."""
    model = load_model(trained.save_trained(name, tmp_path), "other", buckets=(8,))
    plain = answers.answer(model.file, trained.rows_for(name))

    def scenario(target: str) -> None:
        with DigitClient(target) as client:
            if name == "speech":
                found = client.classify_recordings(trained.RECORDINGS)
            else:
                found = client.classify(trained.IMAGES)
            assert client.model("other").family == trained.CONFIGS[name].family
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
