"""Many networks trained at once: what an epoch of one of them costs, beside one network alone.

    python -m benchmarks.ensemble [--quick] [--publish]

The networks of a sweep that differ in their seeds: one program, one shuffle for all. Each number
of networks has as many threads as `jaxnn sweep` gives it, one alone as many as `jaxnn train`. The
first network of each has the seed of the one alone, and has to end at its parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.epoch import TOLERANCES, Setting, digits, ours
from benchmarks.report import markdown
from benchmarks.timing import Contestant, Outcome
from jaxnn.commands.settings import THREADS_PAY_FROM, largest_product

ALONE = 0  # in place of a number of networks
NETWORKS = (2, 4, 16, 64)
REPEATS = {True: 7, False: 25}  # quick or not
BUDGET = {True: 1.5, False: 20.0}  # seconds a contestant may use up, beyond two repeats


def many(setting: Setting, networks: int) -> Callable[[], list[np.ndarray]]:
    """An epoch of so many networks with seeds from 0 on, as `ensemble.fit` runs it.

    Gives the first network's parameters.
    """
    import jax

    from jaxnn import ensemble, epoch, models
    from jaxnn.optimizers import optimizer_of

    config = setting.config()
    steps = setting.examples // setting.batch_size
    train_epoch = ensemble.program(config, steps, together=True)
    keys = jax.vmap(jax.random.key)(np.arange(networks, dtype=np.uint32))
    params = jax.jit(jax.vmap(models.build(epoch.spec_of(config)).init))(keys)
    first = (params, jax.vmap(optimizer_of(config, steps).init)(params))
    images, labels = jax.device_put(digits(setting.examples))
    key = epoch.changes_key(config, 0)

    def run() -> list[np.ndarray]:
        carry = jax.tree.map(jax.numpy.array, first)  # copies: donated below
        order = epoch.shuffled_batches(0, 0, setting.examples, setting.batch_size)
        carry, costs = train_epoch(carry, images, labels, order, key, epoch.Own(), 1.0)
        np.asarray(costs)  # waits for the epoch
        return [np.asarray(leaf)[0] for leaf in jax.tree.leaves(carry[0])]

    return run


def threads(setting: Setting, networks: int) -> int:
    """As `jaxnn sweep` chooses them on two cores, and `jaxnn train` for one network."""
    return 2 if networks * largest_product(setting.config()) >= THREADS_PAY_FROM else 1


def contestants(setting: Setting, networks: tuple[int, ...]) -> dict[int, Contestant]:
    """One alone, and each number of networks, every one in a process of its own."""
    found = {ALONE: Contestant(partial(ours, setting), threads(setting, 1))}
    for count in networks:
        found[count] = Contestant(partial(many, setting, count), threads(setting, count))
    return found


def check(outcomes: dict[int, Outcome]) -> None:
    """Raises AssertionError where a first network does not end where the one alone ends."""
    rtol, atol = TOLERANCES
    for count, outcome in outcomes.items():
        for found, expected in zip(outcome.result, outcomes[ALONE].result, strict=True):
            np.testing.assert_allclose(
                found, expected, rtol=rtol, atol=atol, err_msg=f"the first of {count} networks"
            )


def run(
    quick: bool,
    setting: Setting = Setting(),  # noqa: B008 - a tuple
    networks: tuple[int, ...] = NETWORKS,
) -> dict[str, Any]:
    """Times all in turn and checks that they end alike."""
    entered = contestants(setting, networks)
    outcomes = timing.interleaved(entered, REPEATS[quick], BUDGET[quick])
    check(outcomes)
    alone = outcomes[ALONE].times
    return {
        "repeats": REPEATS[quick],
        "title": str(setting),
        "alone": {"threads": entered[ALONE].threads, **alone._asdict()},
        "networks": {
            str(count): {
                "threads": entered[count].threads,
                **outcomes[count].times._asdict(),
                "ratio": outcomes[count].times.median / count / alone.median,
            }
            for count in networks
        },
    }


def table(result: dict[str, Any]) -> str:
    """A row for each number of networks, the one alone first."""
    rows = [_row("one alone", 1, result["alone"])]
    rows += [_row(f"{int(n):,} at once", int(n), one) for n, one in result["networks"].items()]
    head = [f"{result['title']}: an epoch", "threads", "median ms", "quartiles"]
    return markdown([*head, "ms a network", "of one alone"], rows)


def _row(name: str, networks: int, one: dict[str, Any]) -> list[str]:
    spread = f"{1e3 * one['low']:.1f} to {1e3 * one['high']:.1f}"
    ratio = f"{one['ratio']:.2f}" if "ratio" in one else ""
    each = f"{1e3 * one['median'] / networks:.1f}"
    return [name, str(one["threads"]), f"{1e3 * one['median']:.1f}", spread, each, ratio]


if __name__ == "__main__":
    from benchmarks import ensemble, report

    report.main("ensemble", ensemble)
