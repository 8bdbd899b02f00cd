"""Requests a second of each family of networks, beside the same network in PyTorch.

    python -m benchmarks.serving_families [--quick] [--publish] [--families NAME ...] [--threads N]
                                          [--rounds N] [--seconds S] [--server-args="--flag value"]

PyTorch sits behind the same server, `benchmarks.torch_server`, in the place of the compiled program
alone: what differs is the time of the network itself. Callers and turns are those of
`benchmarks.serving`: a closed loop, then half its rate at even intervals. Nobody is asked whether
an image is a digit at all, which PyTorch is not made to know. Both go over the lean transport, and
compute with the same number of threads: one, as in `jaxnn serve`, where no other is given.

Images are the embedded test digits. Rows of speech are made up, with the lengths of recordings, and
come as features, so that both are spared the same preparing.
"""

import argparse
import importlib.util
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.load import asked, contestants, generator, messages, turns
from benchmarks.load.contestants import Contestant
from benchmarks.load.turns import Row
from benchmarks.report import markdown

OURS, PEER = "jaxnn", "PyTorch"
FAMILIES = {  # name in the table: what it is, and the ready-made model, or none
    "mlp": ("the network that ships", "mlp"),
    "cnn": ("lenet, as it ships", "cnn"),
    "speech": ("lstm in both directions, as it ships", "speech"),
    "rows": ("lstm of 128 that reads 28 rows of 28 pixels", ""),
}
ROWS = (Row(1, 1), Row(1, 32), Row(32, 8), Row(256, 4))
ROUNDS = {True: 2, False: 5}  # quick or not
SECONDS = {True: 0.4, False: 2.0}  # of each measurement, after the warm-up


class Settings(NamedTuple):
    """What is measured, and how."""

    families: tuple[str, ...] = tuple(FAMILIES)
    rows: tuple[Row, ...] = ROWS
    threads: int = 1  # of each server's network
    server_args: tuple[str, ...] = ("--transport", "lean")
    rounds: int = ROUNDS[True]
    seconds: float = SECONDS[True]


def run(quick: bool, settings: Settings | None = None) -> dict[str, Any]:
    """Measures everything; left out where the load generator cannot be built."""
    settings = settings or Settings(rounds=ROUNDS[quick], seconds=SECONDS[quick])
    try:
        generator.program()
    except generator.Unavailable as error:
        return {"left_out": str(error)}
    found = {}
    for family in settings.families:
        with tempfile.TemporaryDirectory() as name:
            found[family] = of_family(family, settings, Path(name))
    return {
        "threads": settings.threads,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "server_args": shlex.join(settings.server_args),
        "absent": {} if _has_torch() else {PEER: "it is not installed"},
        "families": found,
    }


def of_family(family: str, settings: Settings, folder: Path) -> list[dict[str, Any]]:
    """What each row gave, for one family; the labels of both servers are checked first."""
    from jaxnn import answers, checkpoint
    from service.inputs import kind_of

    path = model_file(family, folder)
    file = checkpoint.load(path)
    kind = kind_of(file.spec)
    counts = sorted({row.images for row in settings.rows})
    rows = asked.rows(kind, counts[-1] + asked.DIFFERENT)
    expected = answers.answer(file, rows).labels.tolist()
    at = messages.FEATURES if kind.step else messages.PIXELS
    given = asked.questions(messages.V1, counts, rows, expected, folder, at)
    entered = entries(path, settings)
    seen = turns.rounds(
        entered,
        settings.rows,
        {messages.V1: given},
        folder,
        number=settings.rounds,
        seconds=settings.seconds,
    )
    return [
        {
            **row._asdict(),
            "contestants": {one.name: turns.summary(seen[row, one.name]) for one in entered},
        }
        for row in settings.rows
    ]


def model_file(family: str, folder: Path) -> Path:
    """The model file of a family: a ready-made one, or one with its first, random parameters.

    How long a network takes does not depend on what it has learnt.
    """
    from jaxnn.ready_made import path_of

    ready_made = FAMILIES[family][1]
    if ready_made:
        return path_of(Path(ready_made))
    import jax

    from jaxnn import checkpoint, models

    spec = models.Spec("lstm", (784, 128, 10), activation="tanh", architecture="rows")
    path = folder / f"{family}.safetensors"
    checkpoint.save(path, jax.jit(models.build(spec).init)(jax.random.key(0)), spec)
    return path


def entries(path: Path, settings: Settings) -> list[Contestant]:
    """Our server, and PyTorch's where it is installed, with equal flags and threads."""
    flags = ("--model", str(path), "--proof", "0", *settings.server_args)
    threads = dict.fromkeys(("NPROC", "OMP_NUM_THREADS"), str(settings.threads))
    environment = {**threads, "OPENBLAS_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"}
    ours = contestants.jaxnn(OURS, messages.V1, 1, flags)._replace(environment=environment)
    if not _has_torch():
        return [ours]
    command = (sys.executable, "-m", "benchmarks.torch_server", "--port", "0", *flags)
    return [ours, Contestant(PEER, command, messages.V1, environment)]


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def table(result: dict[str, Any]) -> str:
    """Rates, then times and the cost of a call, and what went wrong."""
    rates, times = [], []
    notes = [f"{name} is absent: {why}." for name, why in result["absent"].items()]
    for family, rows in result["families"].items():
        for row in rows:
            found = row["contestants"]
            title = f"{family}, {Row(row['images'], row['callers'])}"
            medians = {name: one["rate"]["median"] for name, one in found.items()}
            cells = [_spread(one) for one in found.values()]
            cells += [f"{row['images'] * median:,.0f}" for median in medians.values()]
            if PEER in medians:
                cells.append(f"{medians[OURS] / medians[PEER]:.2f}")
            rates.append([title, *cells])
            parts = ("p50", "p99", "half_p50", "half_p99", "cpu_us")
            times.append(
                [title, *(f"{one[part]:,.0f}" for one in found.values() for part in parts)]
            )
            for name, one in found.items():
                notes += [f"{title}, {name}: {n} {code}." for code, n in one["errors"].items()]
    names = [OURS] if PEER in result["absent"] else [OURS, PEER]
    heads = ["rows / callers", *(f"{name}, requests/s" for name in names)]
    heads += [f"{name}, rows/s" for name in names] + ["of PyTorch"] * (len(names) - 1)
    columns = ["microseconds"]
    for name in names:
        columns += [f"{name} p50", "p99", "half load p50", "p99", "CPU a call"]
    return "\n\n".join([_setup(result), markdown(heads, rates), markdown(columns, times), *notes])


def _spread(one: dict[str, Any]) -> str:
    rate = one["rate"]
    return f"{rate['median']:,.0f} ({rate['low']:,.0f} to {rate['high']:,.0f})"


def _setup(result: dict[str, Any]) -> str:
    threads = f"{result['threads']} thread{'s' * (result['threads'] > 1)}"
    given = f" with `{result['server_args']}`" if result["server_args"] else ""
    what = "; ".join(f"{name}: {FAMILIES[name][0]}" for name in result["families"])
    return (
        f"One process{given}, the network on {threads}; {result['rounds']} rounds of "
        f"{result['seconds']:g} s; medians (quartiles). A row is an image, or a recording. {what}."
    )


def main() -> None:
    """Asks this question alone, with all its settings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--publish", action="store_true", help="rewrite the JSON and the page")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--server-args", type=shlex.split, help="one word, --transport among them")
    parser.add_argument("--rounds", type=int, help="2 or more")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    given = parser.parse_args()
    settings = Settings(
        families=tuple(given.families),
        threads=given.threads,
        rounds=given.rounds or ROUNDS[given.quick],
        seconds=given.seconds or SECONDS[given.quick],
    )
    if given.server_args is not None:
        settings = settings._replace(server_args=tuple(given.server_args))
    result = {**report.machine(), "quick": given.quick, **run(given.quick, settings)}
    if "left_out" in result:
        print(f"serving_families is left out: {result['left_out']}")
        return
    text = f"{report.place(result)}\n\n{table(result)}"
    print(text)
    if given.publish:
        report.publish("serving_families", result, text)


if __name__ == "__main__":
    main()
