"""The benchmarks of many networks, of images from the disk, and of growth: their own arithmetic."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ensemble, growth, memory, stream, timing
from benchmarks.epoch import Setting
from benchmarks.timing import Outcome, Times
from jaxnn import data
from jaxnn.config import TrainConfig
from jaxnn.errors import DataError

TINY = Setting(sizes=(784, 5, 10), batch_size=20, examples=200)


def test_the_first_of_many_networks_ends_where_one_alone_ends() -> None:
    entered = ensemble.contestants(TINY, (2,))
    outcomes = {at: Outcome(one.prepare()(), Times(1, 1, 1)) for at, one in entered.items()}
    ensemble.check(outcomes)
    second = [array + 0.1 for array in outcomes[2].result]
    with pytest.raises(AssertionError, match="first of 2 networks"):
        ensemble.check({**outcomes, 2: Outcome(second, Times(1, 1, 1))})


def test_many_networks_have_the_threads_of_a_sweep() -> None:
    found = {n: one.threads for n, one in ensemble.contestants(Setting(), (2, 4, 16, 64)).items()}
    assert found == {ensemble.ALONE: 1, 2: 1, 4: 1, 16: 2, 64: 2}


def test_the_ensemble_table_gives_the_cost_of_a_network() -> None:
    times = Times(0.06, 0.05, 0.07)._asdict()
    of_16 = Times(0.48, 0.4, 0.5)._asdict()
    result = {
        "title": "S",
        "alone": {"threads": 1, **times},
        "networks": {"16": {"threads": 2, **of_16, "ratio": 0.5}},
    }
    lines = ensemble.table(result).splitlines()
    assert lines[-2:] == [
        "| one alone | 1 | 60.0 | 50.0 to 70.0 | 60.0 |  |",
        "| 16 at once | 2 | 480.0 | 400.0 to 500.0 | 30.0 | 0.50 |",
    ]


def test_an_epoch_from_written_files_costs_what_one_in_memory_costs(tmp_path: Path) -> None:
    stream.write(tmp_path, 2_000)
    read = data.load(tmp_path)
    digits = data.load("embedded")
    assert np.array_equal(read.train_images, digits.train_images[:2_000])
    assert np.array_equal(read.train_labels, digits.train_labels[:2_000])
    config = TrainConfig(sizes=(784, 5, 10), epochs=1)
    runs = {
        stream.MEMORY: stream.trained(tmp_path, streamed=False, config=config),
        stream.STREAM: stream.trained(tmp_path, streamed=True, config=config),
        stream.FORGOTTEN: stream.trained(tmp_path, True, forget=True, config=config),
    }
    outcomes = {(1, n): Outcome((run(), 1), Times(1, 1, 1)) for n, run in runs.items()}
    stream.check(outcomes)
    costs = {name: outcome.result[0] for (_, name), outcome in outcomes.items()}
    assert costs[stream.STREAM] == costs[stream.FORGOTTEN]  # the same images in the same order
    assert costs[stream.STREAM] != costs[stream.MEMORY]  # or nothing was streamed
    outcomes[1, stream.STREAM] = Outcome((2 * costs[stream.STREAM], 1), Times(1, 1, 1))
    with pytest.raises(AssertionError, match="1 x, streamed"):
        stream.check(outcomes)

    (tmp_path / "train-images-idx3-ubyte").unlink()
    assert runs[stream.MEMORY]() == costs[stream.MEMORY]
    with pytest.raises(DataError, match="train-images"):
        runs[stream.STREAM]()


def test_a_larger_set_is_written_with_the_digits_repeated(tmp_path: Path) -> None:
    stream.write(tmp_path, 8_003)
    images, labels, _, _ = data.load(tmp_path)
    digits = data.load("embedded")
    for first in (0, 8_000):
        assert np.array_equal(images[first : first + 3], digits.train_images[:3])
        assert np.array_equal(labels[first : first + 3], digits.train_labels[:3])


def test_the_stream_table_gives_speed_and_growth() -> None:
    def of(times: int, name: str, seconds: float, peak: int) -> dict:
        found = Times(seconds, seconds, seconds)._asdict()
        return {"times": times, "name": name, **found, "speed": 0.05 / seconds, "peak": peak}

    epochs = [
        of(1, stream.MEMORY, 0.05, 300_000_000),
        of(1, stream.STREAM, 0.0625, 310_000_000),
        of(4, stream.MEMORY, 0.2, 500_000_000),
        of(4, stream.STREAM, 0.2, 311_000_000),
    ]
    text = stream.table({"examples": 60_000, "epochs": epochs})
    assert "| 60,000 images, streamed | 62.5 | 62.5 to 62.5 | 0.80 | 310 |" in text
    assert "| 240,000 images, in memory | 200.0 " in text
    assert "141 MB more" in text
    assert "+1 MB streamed, by +200 MB in memory" in text


def test_the_peak_of_memory_rises_with_what_is_held() -> None:
    run = memory.with_peak(lambda: lambda: len(np.ones(40_000_000)))  # 320 MB
    before = memory.peak()
    assert run() == (40_000_000, memory.peak())
    room = 40_000_000  # what earlier tests may have held and let go again
    assert memory.peak() > before + 320_000_000 - room or before > 360_000_000


def test_a_process_is_not_charged_with_the_memory_of_its_parent() -> None:
    held = np.ones(60_000_000)  # 480 MB
    entered = {"child": timing.Contestant(peak_alone, 1)}
    assert timing.interleaved(entered, 2)["child"].result < held.nbytes


def peak_alone() -> Callable[[], int]:
    return memory.peak


def test_the_slope_is_the_exponent() -> None:
    points = [{"at": at, "median": 3 * at**1.5, "peak": 7} for at in (1, 4, 16)]
    assert growth.slope(points, "median") == pytest.approx(1.5)
    assert growth.slope(points, "peak") == pytest.approx(0)
    assert growth.slope(points[-2:], "median") == pytest.approx(1.5)


def test_growth_goes_along_three_axes() -> None:
    found = {
        name: {at: one.threads for at, one in entered.items()}
        for name, entered in growth.contestants(growth.Scale()).items()
    }
    assert found == {
        "data": {60_000: 1, 240_000: 1, 960_000: 1},
        "width": {16: 1, 64: 1, 256: 2, 1024: 2},
        "networks": {1: 1, 4: 1, 16: 2, 64: 2, 256: 2},
    }


def test_a_point_of_growth_gives_parameters_and_a_peak() -> None:
    entered = growth.contestants(growth.Scale(examples=200, widths=(5,)))["width"]
    params, peak = entered[5].prepare()()
    growth.check({5: Outcome((params, peak), Times(1, 1, 1))})
    assert peak > 50_000_000  # Python and JAX alone
    params = [np.full_like(leaf, np.nan) for leaf in params]
    with pytest.raises(AssertionError, match="5: not finite"):
        growth.check({5: Outcome((params, peak), Times(1, 1, 1))})


def grown() -> dict:
    points = [
        {"at": at, "threads": threads, **Times(s, s, s)._asdict(), "peak": 300_000_000 * at}
        for at, threads, s in ((1, 1, 0.5), (4, 2, 1.0))
    ]
    return {"axes": dict.fromkeys(growth.AXES, points)}


def test_the_growth_table_has_slopes_and_points() -> None:
    text = growth.table(grown())
    assert text.startswith("![")
    assert "(figures/growth.png)" in text
    assert "| networks at once, 1 to 4 | 0.50 | 0.50 | 1.00 | 1.00 |" in text
    assert "| neurons in each hidden layer: 4 | 2 | 1,000 | 1,000 to 1,000 | 1,200 |" in text


def test_the_growth_figure_has_a_panel_for_time_and_memory_of_each_axis() -> None:
    fig = growth.figure(grown())
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == ["time: slope 0.50"] * 3 + ["peak memory: slope 1.00"] * 3
    line, one_thread, two_threads = fig.axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [0.5, 1.0])  # two points: the fit meets both
    assert one_thread.get_markerfacecolor() == one_thread.get_color()
    assert two_threads.get_markerfacecolor() == "white"
