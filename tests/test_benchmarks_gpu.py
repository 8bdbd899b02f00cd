"""The GPU's benchmark on the CPU: what it computes and counts, at tiny sizes."""

import json

import numpy as np
import pytest

from benchmarks import ensemble, epoch, gpu
from benchmarks.epoch import Setting
from benchmarks.timing import Outcome, Times

WORK = gpu.Work(
    examples=200, batch_sizes=(20,), networks=(2,), images=64, image_batches=(16,), passes=2
)


def test_the_gpu_questions_share_a_process() -> None:
    entered = gpu.contestants(WORK)
    asked = {name: (one.prepare.func, one.prepare.args) for name, one in entered.items()}
    classic = Setting(examples=200)
    assert asked == {
        ("epoch", 20): (epoch.ours, (classic._replace(batch_size=20),)),
        ("networks", 2): (ensemble.many, (classic, 2)),
        ("forward", 16): (gpu.forward, (64, 16, 2)),
    }
    assert {one.library for one in entered.values()} == {"jaxnn"}
    assert len({one.threads for one in entered.values()}) == 1


def test_resident_images_are_answered() -> None:
    a = epoch.digits(16)[0] / 255
    for w, b in epoch.start(Setting()).params:  # of seed 0, as there
        a = 1 / (1 + np.exp(-(a @ w.T + b)))
    assert np.array_equal(gpu.forward(64, 16, 2)(), a.argmax(axis=1))


def test_the_multiplications_of_a_step_are_counted() -> None:
    assert gpu.multiplications((784, 16, 16, 10)) == 2 * 784 * 16 + 3 * (16 * 16 + 16 * 10)


def test_peaks_are_known_by_name_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAXNN_PEAK_TFLOPS", "JAXNN_PEAK_GBPS"):
        monkeypatch.delenv(name, raising=False)
    assert gpu.peaks("NVIDIA A100-SXM4-80GB") == (156e12, 2039e9)
    assert gpu.peaks("NVIDIA L40S") == (183e12, 864e9)
    assert gpu.peaks("NVIDIA L4") == (60e12, 300e9)
    assert gpu.peaks("something else") == (None, None)
    monkeypatch.setenv("JAXNN_PEAK_GBPS", "100")
    assert gpu.peaks("something else") == (None, 100e9)
    assert gpu.peaks("NVIDIA L4") == (60e12, 100e9)


def test_rates_of_the_gpu_and_fractions_of_its_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAXNN_PEAK_TFLOPS", "JAXNN_PEAK_GBPS"):
        monkeypatch.delenv(name, raising=False)
    outcomes = {name: Outcome(None, Times(0.5, 0.5, 0.5)) for name in gpu.contestants(WORK)}
    found = gpu.figures(WORK, gpu.Device("gpu", "NVIDIA L4"), outcomes)
    (networks,) = found["networks"]
    assert networks["network_epochs"] == 4  # 2 networks in half a second
    operations = 4 * 200 * 2 * gpu.multiplications((784, 16, 16, 10))
    assert networks["operations"] == operations
    assert networks["of_peak"] == pytest.approx(operations / 60e12)
    (forward,) = found["forward"]
    assert forward["images"] == 64 * 2 / 0.5
    assert forward["of_peak"] == pytest.approx(784 * 256 / 300e9)
    text = gpu.table(json.loads(json.dumps(found)))
    assert "NVIDIA L4, whose peak is taken to be 60.0 TFLOP/s and 300.0 GB/s." in text
    assert "| batch 20 | 500.00 | 500.00 to 500.00 | 400 |" in text
    unknown = gpu.figures(WORK, gpu.Device("cpu", "cpu"), outcomes)
    assert "cpu, of unknown peak." in gpu.table(unknown)
    assert gpu.table(unknown).endswith(" 0.0 |  |")


def test_without_a_gpu_its_question_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "device", lambda: gpu.Device("cpu", "cpu"))
    monkeypatch.setattr(gpu, "contestants", None)  # nothing may run
    assert "no GPU" in gpu.run(quick=True)["left_out"]
