"""Training against plain gradient descent in NumPy, and against itself: resumed, repeated."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from trees import relative_difference, same_bytes

from jaxnn import augment, epoch, metrics, models, train
from jaxnn.data import Dataset
from jaxnn.errors import ConfigError, RunError, ShapeError
from jaxnn.train import TrainConfig, TrainState, fit

CONFIG = TrainConfig(sizes=(784, 8, 10), epochs=3, batch_size=20, learning_rate=1.0)


def changed(**changes: object) -> TrainConfig:
    return dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def sgd_in_numpy(params: list, config: TrainConfig, data: Dataset) -> list:
    """The classic loop, in float64, sharing only the shuffles and the first parameters."""
    params = [[np.asarray(w, np.float64), np.asarray(b, np.float64)] for w, b in params]
    images = data.train_images.reshape(-1, 784) / 255
    targets = np.eye(10)[data.train_labels]
    for number in range(config.epochs):
        for batch in epoch.shuffled_batches(config.seed, number, len(images), config.batch_size):
            a = [images[batch]]
            for w, b in params:
                a.append(sigmoid(a[-1] @ w.T + b))
            delta = 2 * (a[-1] - targets[batch]) * a[-1] * (1 - a[-1])
            for layer in range(len(params) - 1, -1, -1):
                w, b = params[layer]
                before = a[layer]
                params[layer] = [
                    w - config.learning_rate * delta.T @ before / len(batch),
                    b - config.learning_rate * delta.mean(axis=0),
                ]
                delta = (delta @ w) * before * (1 - before)
    return params


@pytest.mark.parametrize("gradient", ["autodiff", "backprop"])
def test_fit_equals_sgd_in_numpy(gradient: str, blobs: Dataset) -> None:
    config = changed(gradient=gradient)
    first = train.initial_state(config, len(blobs.train_images)).params
    expected = sgd_in_numpy(first, config, blobs)
    found = [list(layer) for layer in fit(config, blobs).params]
    # 33 steps in float32 beside float64: rounding of 1e-7 a step, amplified a little.
    assert relative_difference(found, expected) < 1e-4


def test_it_learns(blobs: Dataset) -> None:
    state = fit(changed(epochs=60), blobs)
    model = models.build(train.spec_of(CONFIG))
    untrained = train.initial_state(CONFIG, 230).params
    before, after = (
        metrics.evaluate(params, blobs.test_images, blobs.test_labels, model=model)
        for params in (untrained, state.best_params)
    )
    assert before.accuracy < 0.4
    assert after.accuracy > 0.95
    assert after.cost < before.cost


def test_every_epoch_sees_a_fresh_shuffle_of_all_images() -> None:
    first, second = (epoch.shuffled_batches(0, number, 230, 23) for number in (0, 1))
    assert sorted(first.ravel()) == sorted(second.ravel()) == list(range(230))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, epoch.shuffled_batches(1, 0, 230, 23))
    assert epoch.shuffled_batches(0, 0, 230, 20).shape == (11, 20)  # 10 wait


def test_the_same_seed_gives_the_same_bytes(blobs: Dataset) -> None:
    assert same_bytes(fit(CONFIG, blobs), fit(CONFIG, blobs))
    assert not same_bytes(fit(CONFIG, blobs).params, fit(changed(seed=1), blobs).params)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_epochs_and_two_more_equal_four(
    optimizer: str, blobs: Dataset, standard_promotion: None
) -> None:
    config = changed(optimizer=optimizer, learning_rate=0.01, epochs=4)
    at_once = fit(config, blobs)
    halfway = fit(dataclasses.replace(config, epochs=2), blobs)
    assert halfway.epoch == 2
    assert same_bytes(fit(config, blobs, state=halfway), at_once)


def test_a_state_can_be_used_twice(blobs: Dataset) -> None:
    """Donation must not eat the caller's arrays."""
    halfway = fit(changed(epochs=1), blobs)
    assert same_bytes(fit(CONFIG, blobs, state=halfway), fit(CONFIG, blobs, state=halfway))


def test_without_a_validation_part_the_lowest_training_cost_is_best(blobs: Dataset) -> None:
    reports = []
    state = fit(
        changed(epochs=6, learning_rate=30.0), blobs, on_epoch=lambda _, r: reports.append(r)
    )
    assert state.best_epoch == 1 + int(np.argmin([report.cost for report in reports]))


def test_the_validation_part_chooses_and_is_not_trained_on(blobs: Dataset) -> None:
    config = changed(validation=50, epochs=4)
    states: list[TrainState] = []
    state = fit(config, blobs, on_epoch=lambda state, _: states.append(state))
    model = models.build(train.spec_of(config))
    found = [
        metrics.evaluate(
            s.params, blobs.train_images[180:], blobs.train_labels[180:], model=model
        ).accuracy
        for s in states
    ]
    assert state.best_epoch == 1 + int(np.argmax(found))
    assert same_bytes(state.best_params, states[state.best_epoch - 1].params)
    other = blobs._replace(train_images=blobs.train_images.copy())
    other.train_images[180:] = 255 - other.train_images[180:]
    assert same_bytes(fit(config, other).params, state.params)


def test_the_test_images_choose_nothing(blobs: Dataset) -> None:
    other = blobs._replace(test_labels=(blobs.test_labels + 1) % 10)
    assert same_bytes(fit(CONFIG, blobs).best_params, fit(CONFIG, other).best_params)


def test_reports_count_and_measure(blobs: Dataset) -> None:
    reports = []
    state = fit(CONFIG, blobs, on_epoch=lambda _, report: reports.append(report))
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert all(report.seconds > 0 and report.images_per_second > 0 for report in reports)
    model = models.build(train.spec_of(CONFIG))
    last = metrics.evaluate(state.params, blobs.test_images, blobs.test_labels, model=model)
    assert reports[-1].held_out_accuracy == last.accuracy
    assert reports[-1].held_out_cost == pytest.approx(last.cost)


def test_an_epoch_compiles_once(blobs: Dataset) -> None:
    epoch._program.cache_clear()
    fit(changed(epochs=5), blobs)
    fit(changed(epochs=5, seed=4), blobs)
    assert epoch._program.cache_info().misses == 1
    assert epoch.program(changed(epochs=5), 11)._cache_size() == 1  # type: ignore[attr-defined]


def test_a_long_run_compiles_nothing_after_its_first_epoch(blobs: Dataset) -> None:
    seen: list[tuple[int, str]] = []
    done = [0]

    def listen(event: str, seconds: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append((done[0], event))

    def on_epoch(state: TrainState, _: object) -> None:
        done[0] = state.epoch

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        fit(changed(sizes=(784, 7, 10), epochs=200), blobs, on_epoch=on_epoch)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert seen  # the first epoch compiled: the listener works
    assert {epochs for epochs, _ in seen} == {0}


def test_shifted_training_is_resumed_exactly_too(blobs: Dataset) -> None:
    config = changed(shift=1, epochs=2)
    halfway = fit(dataclasses.replace(config, epochs=1), blobs)
    at_once = fit(config, blobs)
    assert same_bytes(fit(config, blobs, state=halfway), at_once)
    assert not same_bytes(fit(changed(epochs=2), blobs).params, at_once.params)


def test_changes_fade_over_the_run(blobs: Dataset) -> None:
    """The program is given 1 at first, and what fade leaves at the end."""
    config = changed(rotate=5.0, fade=0.8, epochs=5)
    assert [round(epoch.changes_strength(config, n), 2) for n in range(5)] == [
        1.0,
        0.84,
        0.68,
        0.52,
        0.36,
    ]
    # Their difference is in the last epochs only: the first sees all of every change.
    plain = dataclasses.replace(config, fade=0.0)
    first = [fit(c, blobs) for c in (config, plain)]
    assert not same_bytes(first[0].params, first[1].params)
    one = [fit(dataclasses.replace(c, epochs=1), blobs) for c in (config, plain)]
    assert same_bytes(one[0].params, one[1].params)


def test_a_cosine_schedule_ends_at_rest(blobs: Dataset, standard_promotion: None) -> None:
    states: list[TrainState] = []
    config = changed(schedule="cosine", epochs=20)  # of 11 steps
    fit(config, blobs, on_epoch=lambda state, _: states.append(state))
    moves = [
        float(np.abs(b.params[0].weights - a.params[0].weights).max())
        for a, b in itertools.pairwise(states)
    ]
    assert moves[-1] < 0.05 * max(moves)
    assert moves[len(moves) // 2] > 0.2 * max(moves)  # not at rest before its end


def test_divergence_is_one_sentence(blobs: Dataset) -> None:
    config = changed(activation="relu", output="softmax", cost="cross_entropy", learning_rate=1e30)
    with pytest.raises(RunError, match=r"diverged in epoch 1: .* below 1e\+30"):
        fit(config, blobs)


@pytest.mark.filterwarnings("ignore:optax|.*:UserWarning")  # of ones that optax will drop
@pytest.mark.filterwarnings("ignore:optax:DeprecationWarning")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optimizer": "magic"}, "optax has no optimiser 'magic'"),
        ({"optimizer": "apply_updates"}, "no optimiser 'apply_updates'"),
        ({"optimizer": "adam", "momentum": 0.9}, "adam takes no momentum"),
        ({"sizes": (783, 10)}, "begin with 783, but an image has 784 pixels"),
        ({"sizes": (784, 9)}, "end with 9, but labels go up to 9"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 231}, "batch_size is 231, expected 1 to 230 with 230 images"),
        ({"validation": 230}, "expected 1 to 0|expected 0 to 229"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"shift": 14}, "shift is 14, expected 0 to 13"),
        ({"optimizer": "dpsgd"}, "dpsgd needs more"),
        ({"optimizer": "lbfgs"}, "lbfgs needs more"),
        ({"optimizer": "noisy_sgd"}, "noisy_sgd keeps a random key"),
        ({"fade": 0.5}, "fade weakens turns"),
        ({"validation": 230, "batch_size": 100}, "validation is 230, expected 0 to 229"),
        ({"rotate": 181.0}, "rotate is 181"),
        ({"shear": 1.5}, "shear is 1.5"),
        ({"devices": -1}, "devices is -1"),
        ({"devices": 3, "batch_size": 10}, "devices is 3, and batch_size 10 no multiple of it"),
        ({"elastic": 14.0}, "elastic is 14"),
        ({"l2": -1.0}, "l2 is -1"),
        ({"l2": float("inf")}, "l2 is inf"),
        ({"momentum": 1.0}, "momentum is 1"),
        ({"momentum": float("nan")}, "momentum is nan"),
        ({"shuffle_seed": -1}, "shuffle_seed is -1"),
        ({"optimizer": "rprop", "schedule": "cosine"}, "takes no cosine schedule"),
        ({"fade": 1.5, "rotate": 1.0}, "fade is 1.5"),
        ({"rotate": -1.0}, "rotate is -1"),
        ({"scale": 1.0}, "scale is 1"),
        ({"schedule": "cosin"}, "choose constant or cosine"),
        ({"gradient": "x"}, "choose autodiff or backprop"),
        ({"epochs": -1}, "epochs is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"shift": -1}, "shift is -1"),
        ({"learning_rate": 0.0}, "expected a positive number"),
        ({"learning_rate": float("nan")}, "expected a positive number"),
        ({"activation": "swoosh"}, "unknown activation"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    changes: dict[str, object], sentence: str, blobs: Dataset, standard_promotion: None
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        fit(changed(**changes), blobs)


@pytest.mark.parametrize(
    "changes",
    [
        {"train_labels": np.zeros(100, np.uint8)},
        {"train_images": np.zeros((230, 28, 28), np.float32)},
        {"train_labels": np.full(230, -1)},
        {"test_images": np.zeros((0, 28, 28), np.uint8), "test_labels": np.zeros(0, np.uint8)},
    ],
)
def test_data_that_cannot_be_are_refused(changes: dict[str, np.ndarray], blobs: Dataset) -> None:
    with pytest.raises(ShapeError):
        fit(CONFIG, blobs._replace(**changes))


def test_momentum_reaches_the_optimizer(blobs: Dataset) -> None:
    assert not same_bytes(fit(changed(momentum=0.9), blobs).params, fit(CONFIG, blobs).params)


def test_state_holds_numpy_only(blobs: Dataset) -> None:
    state = fit(CONFIG, blobs)
    assert {type(leaf) for leaf in jax.tree.leaves(state.params)} == {np.ndarray}


def test_an_epoch_is_its_steps_one_by_one(blobs: Dataset) -> None:
    """Each with its own images, changed by its own key, in the order that was given."""
    config = changed(shift=2, rotate=9.0, scale=0.2, shear=0.1, elastic=0.5)
    how = augment.Changes(shift=2, rotate=9.0, scale=0.2, shear=0.1, elastic=0.5)
    order = epoch.shuffled_batches(0, 0, 230, 20)
    images, labels = blobs.train_images.reshape(230, 784), blobs.train_labels
    key, strength = jax.random.key(3), 0.5
    first = train.initial_state(config, 230)
    step = jax.jit(epoch.train_step(config, 11))
    change = jax.jit(lambda key, chosen: augment.changed(key, chosen, how, strength))
    carry, costs = (first.params, first.opt_state), []
    for batch, one in zip(order, jax.random.split(key, len(order)), strict=True):
        y = jax.nn.one_hot(labels[batch], 10, dtype=np.float32)
        carry, cost = step(carry, change(one, images[batch]), y)
        costs.append(float(cost))
    function = jax.jit(epoch.epoch_function(config, 11))
    found, mean_cost = function(
        (first.params, first.opt_state), images, labels, order, key, strength=strength
    )
    # Each image is turned in another program: float32, 11 steps.
    assert relative_difference(found[0], carry[0]) < 1e-4
    assert float(mean_cost) == pytest.approx(np.mean(costs), rel=1e-5)


def test_the_shuffle_seed_decides_shuffles_and_changes_alone(blobs: Dataset) -> None:
    assert epoch.shuffle_seed(changed(seed=3)) == 3
    assert epoch.shuffle_seed(changed(seed=3, shuffle_seed=0)) == 0
    config = changed(seed=3, shift=1, epochs=1)
    assert same_bytes(fit(config, blobs), fit(dataclasses.replace(config, shuffle_seed=3), blobs))
    other = fit(dataclasses.replace(config, shuffle_seed=4), blobs)
    assert not same_bytes(fit(config, blobs).params, other.params)
    keys = [epoch.changes_key(changed(seed=3, shuffle_seed=s), 0) for s in (3, 4)]
    assert keys[0] == epoch.changes_key(changed(seed=3), 0)
    assert keys[0] != keys[1]
    assert epoch.changes_key(config, 0, 1) != epoch.changes_key(config, 0, 2)
    assert epoch.changes_key(config, 0) != epoch.changes_key(config, 1)


def test_a_last_step_that_breaks_the_network_is_noticed(
    blobs: Dataset, standard_promotion: None
) -> None:
    """Its cost was measured before it, and was finite."""
    config = changed(
        activation="relu",
        output="softmax",
        cost="cross_entropy",
        optimizer="adam",
        learning_rate=3e38,
        batch_size=230,
    )
    with pytest.raises(RunError, match="diverged in epoch 1"):
        fit(config, blobs)


def test_square_images_of_another_size_can_be_changed() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 6, 6), np.uint8), np.arange(40, dtype=np.uint8) % 10
    data = Dataset(images, labels, images, labels)
    fit(changed(sizes=(36, 10), rotate=5.0, shift=1, epochs=1), data)
    oblong = Dataset(images[:, :5], labels, images[:, :5], labels)
    fit(changed(sizes=(30, 10), epochs=1), oblong)
    with pytest.raises(ConfigError, match="30 pixels: only square"):
        fit(changed(sizes=(30, 10), epochs=1, shift=1), oblong)
