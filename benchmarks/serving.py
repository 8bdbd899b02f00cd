"""Requests a second that the service answers, beside a bare grpcio echo of the same messages.

    python -m benchmarks.serving [--full] [--publish] [--rows 1/32 128/32] [--peers NAME ...]
                                 [--api v2] [--processes 2] [--server-args="--flag value"]

Callers are a program in C++ (benchmarks/load/load.cc) on the same machine, in a closed loop: each
sends again when it is answered. The echo sends back replies of the service's size, in two ways, of
which the better one counts: malloc as it is, and with its thresholds raised. In each round every
server is started anew, and the servers take turns at each row; then requests come at half the rate
just measured, at even intervals. Medians over the rounds.

Our server takes part over gRPC's own server and over the lean transport, both asked for labels,
scores and confidence, as the peers give them; and lean once more with the test besides whether each
image is a digit at all.

Peers serve the same network: ONNX Runtime behind grpc.aio, and MLServer. Their Python is named by
JAXNN_BENCH_ONNX and JAXNN_BENCH_MLSERVER, or is installed under build/ on first use.
"""

import argparse
import shlex
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.load import asked, contestants, generator, messages, turns
from benchmarks.load.asked import Asked
from benchmarks.load.contestants import PEERS, Contestant, Missing
from benchmarks.load.turns import Row
from benchmarks.report import markdown

ECHO, ECHO_KEPT = "echo", "echo, memory kept"
OURS, LEAN, REJECTING = "jaxnn", "jaxnn, lean", "jaxnn, lean, with rejection"
ROUNDS = {True: 3, False: 7}  # quick or not
SECONDS = {True: 1.5, False: 4.0}  # of each measurement, after the warm-up
ROWS = (
    Row(1, 1, 0.75),
    Row(1, 32, 0.75),
    Row(1, 128, 0.8),
    Row(128, 32, 0.75),
    Row(1024, 8, 0.6),
    Row(4000, 8, 0.6),
)


class Settings(NamedTuple):
    """What is measured, and how."""

    rows: tuple[Row, ...] = ROWS
    peers: tuple[str, ...] = tuple(PEERS)
    api: str = messages.V1
    processes: int = 1
    server_args: tuple[str, ...] = ()
    rounds: int = ROUNDS[True]
    seconds: float = SECONDS[True]


def run(quick: bool, settings: Settings | None = None) -> dict[str, Any]:
    """Measures everything; left out where the load generator cannot be built."""
    settings = settings or Settings(rounds=ROUNDS[quick], seconds=SECONDS[quick])
    try:
        generator.program()
    except generator.Unavailable as error:
        return {"left_out": str(error)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = asked.store(folder / "network.npz")
        counts = sorted({row.images for row in settings.rows})
        questions = {api: asked.written(api, counts, network, folder) for api in messages.METHODS}
        entered, absent = entries(settings, questions[settings.api], folder)
        seen = turns.rounds(
            entered,
            settings.rows,
            questions,
            folder,
            number=settings.rounds,
            seconds=settings.seconds,
            processes=settings.processes,
        )
    return {
        "api": settings.api,
        "processes": settings.processes,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "server_args": shlex.join(settings.server_args),
        "versions": contestants.versions(entered),
        "absent": absent,
        "rows": [
            {
                **row._asdict(),
                "contestants": {one.name: turns.summary(seen[row, one.name]) for one in entered},
            }
            for row in settings.rows
        ],
    }


def entries(
    settings: Settings, questions: dict[int, Asked], folder: Path
) -> tuple[list[Contestant], dict[str, str]]:
    """Everyone who takes part, and why the others do not; asks our server for its replies."""
    given, lean = settings.server_args, ("--transport", "lean")
    ours = contestants.jaxnn(OURS, settings.api, settings.processes, given)
    leaner = contestants.jaxnn(LEAN, settings.api, settings.processes, (*lean, *given))
    pairs = []
    with contestants.started(ours, folder / f"{ours.name}.log") as server:
        for count, (requests, _) in questions.items():
            reply = folder / f"reply-{count}"
            reply.write_bytes(asked.reply(server.target, settings.api, requests[0]))
            pairs.append((requests[0], reply))
    bare = (settings.api, pairs, settings.processes)
    entered = [
        contestants.echo(ECHO, *bare),
        contestants.echo(ECHO_KEPT, *bare, "--keep-memory"),
        ours,
        leaner,
        leaner._replace(name=REJECTING, api=messages.WHOLE[settings.api]),
    ]
    absent = {}
    for name in settings.peers:
        try:
            entered.append(contestants.peer(name, folder / "network.npz", settings.processes))
        except Missing as error:
            absent[name] = str(error)
    return entered, absent


def table(result: dict[str, Any]) -> str:
    """Rates and their part of the echo, times and the cost of a call, and what went wrong."""
    peers = [name for name in result["rows"][0]["contestants"] if name in PEERS]
    rates, times, notes = (
        [],
        [],
        [f"{name} is absent: {why}." for name, why in result["absent"].items()],
    )
    for row in result["rows"]:
        found = row["contestants"]
        title = str(Row(row["images"], row["callers"]))
        bare, lean = found[better_echo(found)], found[LEAN]
        ratios = [
            f"{found[name]['rate']['median'] / bare['rate']['median']:.2f}"
            for name in (OURS, LEAN, REJECTING)
        ]
        wanted = "" if row["wanted"] is None else f"{row['wanted']:.2f}"
        others = [f"{found[name]['rate']['median']:,.0f}" for name in peers]
        rates.append([title, *map(_spread, (bare, found[OURS], lean)), *ratios, wanted, *others])
        cells = [f"{one[part]:,.0f}" for one in (bare, lean) for part in ("p50", "p99", "cpu_us")]
        half = [f"{lean[part]:,.0f}" for part in ("half_p50", "half_p99")]
        tails = [f"{one['half_p99'] / one['half_p50']:.1f}" for one in (lean, bare)]
        times.append([title, *cells, *half, *tails])
        for name, one in found.items():
            notes += [f"{title}, {name}: {n} {code}." for code, n in one["errors"].items()]
    heads = ["images / callers", "echo, requests/s", OURS, LEAN, "of the echo: jaxnn", "lean"]
    heads += ["lean with rejection", "wanted", *peers]
    columns = ["microseconds", "echo p50", "p99", "CPU a call", "lean p50", "p99", "CPU a call"]
    columns += ["half load p50", "p99", "p99 / p50", "of the echo"]
    return "\n\n".join([_setup(result), markdown(heads, rates), markdown(columns, times), *notes])


def better_echo(found: dict[str, dict[str, Any]]) -> str:
    """The name of the faster of the two echoes."""
    return max((ECHO, ECHO_KEPT), key=lambda name: found[name]["rate"]["median"])


def _spread(one: dict[str, Any]) -> str:
    rate = one["rate"]
    return f"{rate['median']:,.0f} ({rate['low']:,.0f} to {rate['high']:,.0f})"


def _setup(result: dict[str, Any]) -> str:
    api = "jaxnn.v1" if result["api"] == messages.V1 else "Open Inference Protocol"
    given = f" with `{result['server_args']}`" if result["server_args"] else ""
    versions = ", ".join(f"{name} {found}" for name, found in result["versions"].items())
    plural = "es" * (result["processes"] > 1)
    return (
        f"{api}, {result['processes']} process{plural}{given}; {result['rounds']} rounds of "
        f"{result['seconds']:g} s; medians (quartiles). {versions}."
    )


def main() -> None:
    """Asks this question alone, with all its settings."""
    named = {f"{row.images}/{row.callers}": row for row in ROWS}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more and longer rounds")
    parser.add_argument("--publish", action="store_true", help="rewrite the JSON and the page")
    parser.add_argument("--rows", nargs="+", choices=named, default=list(named), metavar="ROW")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=[])
    parser.add_argument("--api", choices=[messages.V1, messages.V2], default=messages.V1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--server-args", type=shlex.split, default=[], help="one word")
    parser.add_argument("--rounds", type=int, help="2 or more")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    given = parser.parse_args()
    settings = Settings(
        rows=tuple(named[name] for name in given.rows),
        peers=tuple(given.peers),
        api=given.api,
        processes=given.processes,
        server_args=tuple(given.server_args),
        rounds=given.rounds or ROUNDS[not given.full],
        seconds=given.seconds or SECONDS[not given.full],
    )
    result = {**report.machine(), "quick": not given.full, **run(not given.full, settings)}
    if "left_out" in result:
        print(f"serving is left out: {result['left_out']}")
        return
    text = f"{report.place(result)}\n\n{table(result)}"
    print(text)
    if given.publish:
        report.publish("serving", result, text)


if __name__ == "__main__":
    main()
