"""What the Open Inference Protocol tells of a version's calls, read out of the telemetry."""

from collections import defaultdict
from collections.abc import Sequence

from service.pb import open_inference_grpc_pb2 as pb
from service.registry import Entry
from service.telemetry import Batches, Telemetry


def all_statistics(entries: Sequence[Entry], telemetry: Telemetry) -> pb.ModelStatisticsResponse:
    """The counts of those entries that are ready; zeros where nothing was asked yet."""
    return pb.ModelStatisticsResponse(
        model_stats=[
            statistics(telemetry, entry.name, entry.version)
            for entry in entries
            if entry.state == "READY"
        ]
    )


def statistics(telemetry: Telemetry, name: str, version: str) -> pb.ModelStatistics:
    """The counts of one version of a model, by whichever API it was asked."""
    mine = [
        (key[4], calls) for key, calls in telemetry.calls.items() if key[2:4] == (name, version)
    ]
    well = [calls for code, calls in mine if code == "OK"]
    answered = sum(calls.count for calls in well)

    def spent(*stages: str) -> pb.StatisticDuration:
        return _duration(answered, sum(calls.spent(*stages) for calls in well))

    failed = [calls for code, calls in mine if code != "OK"]
    sizes = defaultdict[int, list[Batches]](list)
    for key, by_size in telemetry.batches.items():
        if key[:2] == (name, version):
            for images, batches in by_size.items():
                sizes[images].append(batches)
    last = max((batches.last for some in sizes.values() for batches in some), default=0.0)
    batch_stats = [_batch_statistics(images, some) for images, some in sorted(sizes.items())]
    return pb.ModelStatistics(
        name=name,
        version=version,
        last_inference=int(last * 1000),
        inference_count=sum(calls.images for calls in well),
        execution_count=sum(one.compute_infer.count for one in batch_stats),
        inference_stats=pb.InferStatistics(
            success=spent("request"),
            fail=_duration(
                sum(calls.count for calls in failed),
                sum(calls.spent("request") for calls in failed),
            ),
            queue=spent("queue"),
            compute_input=spent("prepare", "assembly"),
            compute_infer=spent("compute"),
            compute_output=spent("encode"),
        ),
        batch_stats=batch_stats,
    )


def _batch_statistics(images: int, of: Sequence[Batches]) -> pb.InferBatchStatistics:
    count = sum(batches.count for batches in of)
    return pb.InferBatchStatistics(
        batch_size=images,
        compute_input=_duration(count, sum(batches.assembly for batches in of)),
        compute_infer=_duration(count, sum(batches.compute for batches in of)),
    )


def _duration(count: int, seconds: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=round(seconds * 1e9))
