"""What the Open Inference Protocol says of models: metadata, configuration, index."""

from collections.abc import Sequence

from service.config import ServiceConfig
from service.outputs import DATATYPES
from service.parameters import PRIORITIES
from service.pb import open_inference_grpc_pb2 as pb
from service.registry import Entry
from service.repository import ServedModel
from service.tensors import inputs_of

PLATFORM = "jax"
_Tensor = pb.ModelMetadataResponse.TensorMetadata


def metadata(model: ServedModel, entries: Sequence[Entry]) -> pb.ModelMetadataResponse:
    """What a model takes and gives.

    Args:
      model: the version that the properties are of.
      entries: of all models.
    """
    file, spec = model.file, model.file.spec
    properties = {
        "version": model.version,
        "family": spec.family,
        "layer_sizes": ",".join(map(str, spec.sizes)),
        "activation": spec.activation,
        "output": spec.output,
        "cost": spec.cost,
        "members": str(spec.members),
        "parameter_count": str(model.parameter_count),
        "rejects": "true" if file.familiar is not None else "false",
        "sha256": file.digest,
        **{f"metrics.{name}": f"{value:.6g}" for name, value in model.metrics.items()},
    }
    outputs = [
        _Tensor(name=name, datatype=kind, shape=[-1, *_dims(model, name)])
        for name, kind in DATATYPES.items()
    ]
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[
            entry.version
            for entry in entries
            if entry.name == model.name and entry.state == "READY"
        ],
        platform=PLATFORM,
        inputs=[
            _Tensor(name=one.name, datatype=one.datatypes[0], shape=[-1, *one.shape])
            for one in inputs_of(model.takes)
        ],
        outputs=outputs,
        properties=properties,
    )


def configuration(model: ServedModel, config: ServiceConfig) -> pb.ModelConfigResponse:
    """How a model is batched and queued."""
    kinds = {
        "BOOL": pb.TYPE_BOOL,
        "BYTES": pb.TYPE_STRING,
        "FP32": pb.TYPE_FP32,
        "INT64": pb.TYPE_INT64,
        "UINT8": pb.TYPE_UINT8,
    }
    queue = pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.REJECT,
        allow_timeout_override=True,
        max_queue_size=config.max_queue_size,
    )
    batching = pb.ModelDynamicBatching(
        preferred_batch_size=[config.max_batch_size],
        max_queue_delay_microseconds=round(config.max_queue_delay_ms * 1000),
        priority_levels=len(PRIORITIES) - 1,
        default_priority_level=2,
        default_queue_policy=queue,
    )
    return pb.ModelConfigResponse(
        config=pb.ModelConfig(
            name=model.name,
            platform=PLATFORM,
            backend=PLATFORM,
            max_batch_size=config.max_images_per_request,
            input=[
                pb.ModelInput(
                    name=one.name,
                    data_type=kinds[one.datatypes[0]],
                    dims=one.shape or [1],
                    optional=place > 0,
                )
                for place, one in enumerate(inputs_of(model.takes))
            ],
            output=[
                pb.ModelOutput(name=name, data_type=kinds[kind], dims=_dims(model, name))
                for name, kind in DATATYPES.items()
            ],
            dynamic_batching=batching,
            parameters={
                "max_message_bytes": pb.ModelParameter(string_value=str(config.max_message_bytes))
            },
            model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
        )
    )


def index(entries: Sequence[Entry], ready: bool) -> pb.RepositoryIndexResponse:
    """Every version known of, or those that are ready."""
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(
                name=entry.name, version=entry.version, state=entry.state, reason=entry.reason
            )
            for entry in entries
            if entry.state == "READY" or not ready
        ]
    )


def _dims(model: ServedModel, output: str) -> list[int]:
    """The shape of an output of one image."""
    return [model.file.spec.sizes[-1]] if output == "scores" else []
