"""Networks trained at once against the same networks trained one by one."""

import dataclasses

import jax
import numpy as np
import pytest
from trees import relative_difference

from jaxnn import ensemble, metrics, models, train
from jaxnn.config import TrainConfig
from jaxnn.data import Dataset
from jaxnn.epoch import spec_of
from jaxnn.errors import ConfigError

CONFIG = TrainConfig(sizes=(784, 8, 10), epochs=3, batch_size=20, learning_rate=1.0)


def changed(**changes: object) -> TrainConfig:
    return dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "configs",
    [
        pytest.param([changed(seed=s, shuffle_seed=9) for s in (0, 3)], id="seeds"),
        pytest.param([changed(seed=s) for s in (0, 3)], id="own shuffles"),
        pytest.param(
            [changed(seed=s, shuffle_seed=9, shift=1) for s in (4, 3)], id="shared changes"
        ),
        pytest.param([changed(learning_rate=r) for r in (0.3, 1.0, 3.0)], id="rates"),
        pytest.param([changed(momentum=m) for m in (0.0, 0.5)], id="momenta"),
        pytest.param([changed(sizes=(784, *h, 10)) for h in ((5, 9), (8, 4))], id="widths"),
        pytest.param(
            [changed(seed=s, learning_rate=r, shift=1) for s, r in ((0, 1.0), (1, 2.0))], id="shift"
        ),
    ],
)
def test_each_ends_where_it_ends_alone(configs: list[TrainConfig], blobs: Dataset) -> None:
    for found in ensemble.fit(configs, blobs):
        alone = train.fit(found.config, blobs)
        # 33 float32 steps with sums taken in another order.
        assert relative_difference(found.params, alone.params) < 1e-4
        assert found.best_epoch == alone.best_epoch
        assert relative_difference(found.best_params, alone.best_params) < 1e-4
        assert found.best_score == pytest.approx(alone.best_score, rel=1e-4)


def test_a_validation_part_chooses_each_networks_best_epoch(blobs: Dataset) -> None:
    configs = [changed(seed=s, validation=50, epochs=5) for s in (0, 1)]
    for found in ensemble.fit(configs, blobs):
        alone = train.fit(found.config, blobs)
        assert (found.best_epoch, found.best_score) == (
            alone.best_epoch,
            pytest.approx(alone.best_score),
        )


def test_progress_measures_every_network_on_the_held_out_images(blobs: Dataset) -> None:
    configs = [changed(learning_rate=r) for r in (0.3, 3.0)]
    seen: list[ensemble.Progress] = []
    trained = ensemble.fit(configs, blobs, on_epoch=seen.append)
    assert [one.epoch for one in seen] == [1, 2, 3]
    for k, one in enumerate(trained):
        expected = metrics.evaluate(
            one.params,
            blobs.test_images,
            blobs.test_labels,
            model=models.build(spec_of(one.config)),
        )
        assert seen[-1].held_out_accuracies[k] == pytest.approx(expected.accuracy)
        assert seen[-1].held_out_costs[k] == pytest.approx(expected.cost, rel=1e-5)
    assert seen[-1].images_per_second == pytest.approx(2 * 11 * 20 / seen[-1].seconds)


def test_a_network_that_diverges_harms_no_other(blobs: Dataset) -> None:
    configs = [changed(learning_rate=r, activation="relu") for r in (1e38, 0.1)]
    bad, good = ensemble.fit(configs, blobs)
    assert bad.diverged
    assert not good.diverged
    alone = train.fit(good.config, blobs)
    assert relative_difference(good.params, alone.params) < 1e-4


def test_of_equal_epochs_the_first_is_best_and_a_diverged_one_never(blobs: Dataset) -> None:
    configs = [changed(activation="relu", learning_rate=r, validation=50) for r in (1e-30, 1e38)]
    still, bad = ensemble.fit(configs, blobs)
    assert still.best_epoch == 1
    assert bad.best_epoch == 0
    assert bad.best_score == -np.inf


def test_a_last_step_that_breaks_a_network_is_noticed(
    blobs: Dataset, standard_promotion: None
) -> None:
    bad = changed(
        activation="relu",
        output="softmax",
        cost="cross_entropy",
        optimizer="adam",
        learning_rate=3e38,
        batch_size=230,
        epochs=1,
    )
    found, good = ensemble.fit([bad, dataclasses.replace(bad, learning_rate=0.01)], blobs)
    assert found.best_epoch == 0
    assert good.best_epoch == 1


def test_masked_neurons_stay_out(blobs: Dataset) -> None:
    """Cut to its own size, the narrower network says what it says within the wider."""
    narrow, wide = ensemble.fit([changed(sizes=(784, n, 10)) for n in (3, 8)], blobs)
    assert narrow.params[0].weights.shape == (3, 784)
    assert narrow.params[1].weights.shape == (10, 3)
    assert wide.params[0].weights.shape == (8, 784)


def test_networks_together_are_an_ensembles_parameters(blobs: Dataset) -> None:
    trained = ensemble.fit([changed(seed=s) for s in (0, 1, 2)], blobs)
    params = ensemble.together(trained)
    assert params[0].weights.shape == (3, 8, 784)
    for k, one in enumerate(trained):
        cut = jax.tree.map(lambda leaf, at=k: leaf[at], params)
        assert relative_difference(cut, one.best_params) == 0
    with pytest.raises(ConfigError, match="different sizes"):
        ensemble.together(ensemble.fit([changed(sizes=(784, n, 10)) for n in (3, 8)], blobs))


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([], "no network"),
        ([CONFIG, changed(batch_size=10)], "may differ in"),
        ([CONFIG, changed(sizes=(784, 8, 8, 10))], "hidden layers only"),
        ([CONFIG, changed(learning_rate=-1.0)], "learning_rate is -1"),
        ([CONFIG, changed(momentum=0.5)], "some have none"),
    ],
)
def test_what_cannot_go_together(configs: list[TrainConfig], message: str, blobs: Dataset) -> None:
    with pytest.raises(ConfigError, match=message):
        ensemble.fit(configs, blobs)


def test_one_program_for_all_epochs(blobs: Dataset) -> None:
    ensemble.program.cache_clear()
    configs = [changed(seed=s, epochs=6) for s in (0, 1)]
    ensemble.fit(configs, blobs)
    assert ensemble.program.cache_info().misses == 1
    shared = dataclasses.replace(configs[0], seed=0, shuffle_seed=0)
    assert ensemble.program(shared, 11, False)._cache_size() == 1
    np.testing.assert_equal(ensemble.program.cache_info().misses, 1)
