"""`jaxnn bench-serve`."""

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxnn.commands.output import write_json
from jaxnn.errors import ConfigError, RunError
from service.calling.connection import Connection

if TYPE_CHECKING:
    from service.calling.load import Load, Tally

WIDTH = 40  # of the longest bar


@dataclass(frozen=True)
class BenchServe:
    """Measure how fast a server answers, ours or another of the Open Inference Protocol."""

    target: Annotated[str, tyro.conf.Positional]
    """HOST:PORT, or IP:PORT,IP:PORT of several."""
    api: Literal["v1", "v2"] = "v1"
    """v1 is jaxnn's own API, v2 the Open Inference Protocol."""
    rows: int = 1
    """Images a request."""
    concurrency: int = 8
    """Callers: requests under way together, at most."""
    connections: int = 1
    """Connections to each server, which the callers share."""
    rate: float | None = None
    """Requests a second to send, whatever comes back, latencies counted from when they are due;
    where not given, each caller asks again when it has its answer."""
    duration: float = 10.0
    """Seconds to measure."""
    warmup: float = 1.0
    """Seconds before that, which do not count."""
    timeout: float = 10.0
    """Seconds after which a request is given up."""
    model: str = ""
    """Name of the model to ask; the server's default where not given."""
    version: str = ""
    """Its version; the server's choice where not given."""
    skip_rejection: bool = False
    """Leave out the test whether a picture is a digit at all (v1)."""
    input: str = ""
    """Name of the input (v2); the first that takes numbers where not given."""
    datatype: Literal["UINT8", "FP32"] | None = None
    """Type of the input (v2); as the model's metadata say where not given."""
    shape: tuple[int, ...] = ()
    """Shape of one image (v2), as in --shape 28 28; as the metadata say where not given."""
    connection: Connection = field(default_factory=Connection)
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Prints rates, latencies, their histogram, and what went wrong."""
        from service.calling import load

        if self.rows < 1:
            raise ConfigError(f"rows is {self.rows}, expected 1 or more")
        if self.shape and min(self.shape) < 1:
            raise ConfigError(f"shape is {self.shape}, expected sizes of 1 or more")
        if self.api == "v2" and self.skip_rejection:
            raise ConfigError("--skip-rejection is of v1: the Open Inference Protocol has no such")
        if self.api == "v1" and (self.input or self.datatype or self.shape):
            raise ConfigError("--input, --datatype and --shape are of v2: add --api v2")
        wanted = load.Load(self.concurrency, self.rate, self.duration, self.warmup, self.timeout)
        tally = load.precisely(self._measure(wanted))
        result = self._result(tally, wanted)
        if self.json != "-":
            _show(result)
        write_json(self.json, result)
        if not tally.answered:
            raise RunError(f"the server at {self.target} answered no request in time")

    async def _measure(self, wanted: "Load") -> "Tally":
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines say less than our sentences
        import grpc.aio

        from service.calling import channels, connection, load, questions

        own = self.connection.with_environment()
        target = connection.parse_target(self.target)
        metadata = channels.metadata_of(own)
        opened = channels.open_channels(grpc.aio, target, own, self.connections)
        try:
            line = questions.Line(self.target, opened[0], metadata, self.timeout)
            prepare = questions.of_v1 if self.api == "v1" else questions.of_v2
            asked = await prepare(
                line,
                questions.Wanted(
                    self.rows,
                    self.model,
                    self.version,
                    self.skip_rejection,
                    self.input,
                    self.datatype or "",
                    self.shape,
                ),
            )
            asks = [asked.ask(channel, metadata) for channel in opened]
            return await load.measure(asks, wanted)
        finally:
            for channel in opened:
                await channel.close()

    def _result(self, tally: "Tally", wanted: "Load") -> dict[str, Any]:
        from service.calling import load

        rate = tally.answered / self.duration
        return {
            "target": self.target,
            "api": self.api,
            "rows": self.rows,
            "connections": self.connections,
            **asdict(wanted),
            "requests_per_s": rate,
            "images_per_s": rate * self.rows,
            "latency_ms": {
                name: 1000 * value for name, value in load.quantiles(tally.latencies).items()
            },
            "histogram_ms": [
                [1000 * bar.low, 1000 * bar.high, bar.size]
                for bar in load.histogram(tally.latencies)
            ],
            "errors": dict(tally.errors.most_common()),
            "unsent": tally.unsent,
            "client_cpu": tally.client_cpu,
        }


def _show(result: dict[str, Any]) -> None:
    """For people."""
    from rich.console import Console
    from rich.table import Table

    loop = f"{result['rate']:,g} requests/s sent" if result["rate"] else "closed loop"
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{result['target']}, API {result['api']}: {_count(result['rows'], 'image')} a request, "
        f"{_count(result['concurrency'], 'caller')}, "
        f"{_count(result['connections'], 'connection')}, {loop}, {result['duration']:g} s",
        markup=False,
    )
    console.print(
        f"[bold]{result['requests_per_s']:,.1f}[/] requests/s   "
        f"[bold]{result['images_per_s']:,.1f}[/] images/s"
    )
    if result["latency_ms"]:
        table = Table("latency", *result["latency_ms"])
        table.add_row("ms", *(f"{value:,.3f}" for value in result["latency_ms"].values()))
        console.print(table)
    most = max((count for *_, count in result["histogram_ms"]), default=0)
    for low, high, count in result["histogram_ms"]:
        # The shortest bar is a sliver: what is rare must be seen.
        bar = "█" * (WIDTH * count // most) or ("▏" if count else "")
        console.print(f"{low:10,.3f} to {high:10,.3f} ms  {bar} {count or ''}".rstrip())
    for code, count in result["errors"].items():
        console.print(f"[red]{count:,} requests failed with {code}[/]")
    if result["unsent"]:
        console.print(
            f"[red]{result['unsent']:,} requests were due but never sent[/]: every caller was "
            "busy; the latencies hold how long they had waited"
        )
    if result["client_cpu"] > 0.9:
        console.print(
            f"this client kept {100 * result['client_cpu']:.0f}% of a core busy: "
            "it may be what limits the figures"
        )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
