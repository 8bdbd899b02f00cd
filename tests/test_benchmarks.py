"""The benchmarks' own arithmetic: nothing here is timed, but the contestants do compute."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as driver
from benchmarks import cold_start, dissect, epoch, report, timing
from benchmarks.dissect import Span
from benchmarks.epoch import Setting
from benchmarks.timing import Outcome, Times
from jaxnn.plots import style

PAGE = """before
<!-- bench:a -->
old
<!-- /bench:a -->
between
<!-- bench:b -->
<!-- /bench:b -->
"""
TINY = Setting(sizes=(784, 5, 10), batch_size=20, examples=200)


def test_only_the_text_between_the_markers_changes() -> None:
    page = report.replaced(PAGE, "a", "| new |")
    assert page == PAGE.replace("old\n", "\n| new |\n\n")
    assert report.replaced(page, "a", "| new |\n") == page  # again changes nothing
    assert report.replaced(page, "b", "x").startswith(page.partition("<!-- bench:b")[0])


@pytest.mark.parametrize(
    "page",
    [
        "",
        PAGE.replace("<!-- bench:a -->", ""),
        PAGE.replace("<!-- /bench:a -->", ""),
        PAGE + PAGE,
        "<!-- /bench:a -->\n<!-- bench:a -->\n",
    ],
)
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="needs one <!-- bench:a -->"):
        report.replaced(page, "a", "x")


def test_the_page_has_the_markers_of_all_questions() -> None:
    for question in driver.QUESTIONS:
        page = report.page_of(question).read_text()
        assert report.replaced(page, question, "x") != page


def test_what_is_published_is_a_json_file_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    report.PAGE.write_text(PAGE)
    result = {**report.machine(), "x": 1}
    report.publish("b", result, "| t |")
    assert json.loads((tmp_path / "results" / "b.json").read_text()) == result
    assert report.PAGE.read_text() == report.replaced(PAGE, "b", "| t |")


def test_the_machine_is_described_without_its_paths() -> None:
    about = report.machine()
    assert set(about) == {"date", "cpu", "cores", "load", "python", "packages"}
    assert about["cpu"]
    assert about["packages"]["numpy"] == np.__version__
    assert str(Path.home()) not in json.dumps(about)
    assert about["date"] in report.place(about)


def test_committed_results_fit_the_page() -> None:
    for path in sorted(report.RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        assert {"date", "cpu", "cores", "python", "packages", "quick"} <= set(result), path.name
        assert path.stem in driver.QUESTIONS
        assert report.place(result) in report.page_of(path.stem).read_text(), path.name
        assert "/" not in result["cpu"]


def test_quartiles_lie_within_what_was_seen() -> None:
    assert timing.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == Times(3.0, 2.0, 4.0)
    assert timing.quartiles([1.0, 2.0]) == Times(1.5, 1.25, 1.75)


def square(number: int) -> list[int]:
    return [number**2]


def test_all_contestants_of_a_tiny_network_end_at_the_same_parameters() -> None:
    entered = epoch.contestants((TINY,), quick=True)
    outcomes = {
        at: Outcome(one.prepare()(), Times(1, 1, 1))
        for at, one in entered.items()
        if "PyTorch" not in at[1]  # it reads how many threads it may have from the environment
    }
    assert len(outcomes) == 7
    epoch.check(outcomes)
    moved = outcomes[TINY, "NumPy, 1 thread"].result[0] - epoch.start(TINY).params[0][0]
    assert np.abs(moved).max() > 0.01  # or the comparison says nothing
    name = TINY, "jaxnn, explicit gradient"
    wrong = [array + 0.1 for array in outcomes[name].result]
    with pytest.raises(AssertionError, match="explicit gradient"):
        epoch.check({**outcomes, name: Outcome(wrong, Times(1, 1, 1))})


def test_pytorch_ends_at_the_same_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: only the benchmarks use it")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = ("PyTorch, 1 thread", "NumPy, 1 thread")
    entered = epoch.contestants((TINY,), quick=True)
    epoch.check({(TINY, n): Outcome(entered[TINY, n].prepare()(), Times(1, 1, 1)) for n in names})


def test_our_threads_are_those_of_jaxnn_train() -> None:
    entered = epoch.contestants(epoch.SETTINGS, quick=True)
    ours = {str(at): one.threads for (at, name), one in entered.items() if name == epoch.OURS}
    assert ours["784-16-16-10, batch 100"] == 1
    assert ours["784-16-16-10, batch 1,000"] == 2
    assert len(ours) == len(epoch.SETTINGS) == 5


def test_the_epoch_table_compares_with_the_better_run() -> None:
    def times(seconds: float) -> dict[str, float]:
        return Times(seconds, seconds, seconds)._asdict()

    seconds = {
        "jaxnn": times(0.05),
        "NumPy, 1 thread": times(0.2),
        "NumPy, 2 threads": times(0.1),
        "floor, 1 thread": times(0.04),
    }
    lines = epoch.table({"settings": [{"title": "S", "seconds": seconds}]}).splitlines()
    assert "| NumPy, 2 threads | 100.0 | 100.0 to 100.0 | 0.50 of it |" in lines
    assert lines[-1] == "| S | 50.0 | 0.50 |  | 1.25 |"


def test_a_moment_belongs_to_the_part_that_began_last() -> None:
    spans = [
        Span(0, 10, "the rest"),
        Span(2, 8, "training"),
        Span(3, 4, "compiling"),
        Span(5, 6, "compiling"),
        Span(5, 5.5, "tracing"),
    ]
    found = dissect.shares(spans)
    assert found == {"the rest": 4, "training": 4, "compiling": 1.5, "tracing": 0.5}


def test_a_watched_function_is_the_same_function() -> None:
    spans: list[Span] = []
    assert dissect.watched(spans, "part", square)(3) == [9]
    with pytest.raises(TypeError):
        dissect.watched(spans, "part", square)("x")
    assert [span.part for span in spans] == ["part", "part"]


def test_the_accuracy_is_read_from_what_a_run_prints() -> None:
    assert cold_start.accuracy("test accuracy 94.74%, cost 0.1") == pytest.approx(0.9474)
    assert cold_start.accuracy("test accuracy 0.9469\n") == 0.9469
    with pytest.raises(RuntimeError, match="no test accuracy"):
        cold_start.accuracy("hello")


def test_without_mnist_the_cold_start_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAXNN_MNIST", raising=False)
    assert "JAXNN_MNIST" in cold_start.run(quick=True)["left_out"]


def test_the_cold_start_table_compares_with_pytorchs_better_run() -> None:
    medians = {cold_start.EMPTY: 3.0, cold_start.WARM: 2.0, "PyTorch, 1 thread": 4.0}
    result = {
        "seconds": {name: Times(s, s, s)._asdict() for name, s in medians.items()},
        "once": {"PyTorch, 2 threads": 9.0},
        "parts": {cold_start.EMPTY: {"imports": 1.0, "compiling": 2.0}, cold_start.WARM: {}},
    }
    lines = cold_start.table(result).splitlines()
    assert "| jaxnn, empty cache | 3.00 | 3.00 to 3.00 | 0.75 |" in lines
    assert "| PyTorch, 2 threads | 9.00 | once |  |" in lines
    assert lines[-2:] == ["| compiling | 2.00 | 0.00 |", "| imports | 1.00 | 0.00 |"]
    assert cold_start.slower({"PyTorch, 1": [1.0], "PyTorch, 2": [2.0]}) == "PyTorch, 2"
    assert cold_start.slower({"PyTorch, 1": [1.0], "jaxnn": [2.0]}) is None


def test_contestants_of_a_library_share_a_process_and_take_turns() -> None:
    entered = {
        "a": timing.Contestant(Prepared("a"), 1, "same"),
        "b": timing.Contestant(Prepared("b"), 1, "same", repeats=2),
        "c": timing.Contestant(Prepared("c"), 1),
    }
    found = timing.interleaved(entered, 3, budget=0.0)
    assert {name: one.result[0] for name, one in found.items()} == {"a": "a", "b": "b", "c": "c"}
    assert found["a"].result[1] == found["b"].result[1] != found["c"].result[1]
    assert all(one.times.low <= one.times.median <= one.times.high for one in found.values())


class Prepared:
    """A contestant that tells its name, its process and its threads."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> Callable[[], tuple[str, int, str]]:
        return lambda: (self.name, os.getpid(), os.environ["NPROC"])


class Drawn:
    """A question that draws a figure."""

    asked = 0

    def run(self, quick: bool) -> dict:
        self.asked += 1
        return {"quick": quick}

    def table(self, result: dict) -> str:
        return "| t |"

    def figure(self, result: dict) -> object:
        return style.figure(1, 1)


def test_the_driver_asks_the_short_set_and_publishes_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {"a": Drawn(), "b": Drawn()}
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"drawn.{name}", module)
    questions = {"a": driver.Question("drawn.a"), "b": driver.Question("drawn.b", short=False)}
    monkeypatch.setattr(driver, "QUESTIONS", questions)
    (tmp_path / "figures").mkdir()
    report.PAGE.write_text(PAGE)

    monkeypatch.setattr(sys, "argv", ["benchmarks", "--print"])
    driver.main()
    assert (modules["a"].asked, modules["b"].asked) == (1, 0)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["figures", "page.md"]
    assert report.PAGE.read_text() == PAGE

    monkeypatch.setattr(sys, "argv", ["benchmarks", "b"])
    driver.main()
    assert (modules["a"].asked, modules["b"].asked) == (1, 1)
    assert (tmp_path / "results" / "b.json").exists()
    assert [one.name for one in (tmp_path / "figures").iterdir()] == ["b.png"]
    assert "| t |" in report.PAGE.read_text()


def test_what_takes_long_is_not_in_the_short_set() -> None:
    longer = {name for name, question in driver.QUESTIONS.items() if not question.short}
    assert longer == {
        *("families", "growth", "growth_families", "gpu", "lstm_epoch", "pictures", "rejection"),
        *("serving", "serving_families"),
    }
