from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EncodedImages(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, images: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Recordings(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, files: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Sounds(_message.Message):
    __slots__ = ("sounds",)
    SOUNDS_FIELD_NUMBER: _ClassVar[int]
    sounds: _containers.RepeatedCompositeFieldContainer[Sound]
    def __init__(self, sounds: _Optional[_Iterable[_Union[Sound, _Mapping]]] = ...) -> None: ...

class Sound(_message.Message):
    __slots__ = ("samples", "sample_rate")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    samples: bytes
    sample_rate: int
    def __init__(self, samples: _Optional[bytes] = ..., sample_rate: _Optional[int] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("pixels", "encoded", "features", "recordings", "sounds", "id", "model_name", "model_version", "priority", "skip_rejection", "report")
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    RECORDINGS_FIELD_NUMBER: _ClassVar[int]
    SOUNDS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SKIP_REJECTION_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    pixels: bytes
    encoded: EncodedImages
    features: bytes
    recordings: Recordings
    sounds: Sounds
    id: str
    model_name: str
    model_version: str
    priority: int
    skip_rejection: bool
    report: bool
    def __init__(self, pixels: _Optional[bytes] = ..., encoded: _Optional[_Union[EncodedImages, _Mapping]] = ..., features: _Optional[bytes] = ..., recordings: _Optional[_Union[Recordings, _Mapping]] = ..., sounds: _Optional[_Union[Sounds, _Mapping]] = ..., id: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., priority: _Optional[int] = ..., skip_rejection: bool = ..., report: bool = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("labels", "scores", "classes", "model_name", "model_version", "id", "confidences", "rejected", "report")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    classes: int
    model_name: str
    model_version: str
    id: str
    confidences: _containers.RepeatedScalarFieldContainer[float]
    rejected: _containers.RepeatedScalarFieldContainer[bool]
    report: Report
    def __init__(self, labels: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., classes: _Optional[int] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., confidences: _Optional[_Iterable[float]] = ..., rejected: _Optional[_Iterable[bool]] = ..., report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("batch_images", "released", "queue_us", "prepare_us", "assembly_us", "compute_us")
    BATCH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    PREPARE_US_FIELD_NUMBER: _ClassVar[int]
    ASSEMBLY_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    batch_images: int
    released: str
    queue_us: int
    prepare_us: int
    assembly_us: int
    compute_us: int
    def __init__(self, batch_images: _Optional[int] = ..., released: _Optional[str] = ..., queue_us: _Optional[int] = ..., prepare_us: _Optional[int] = ..., assembly_us: _Optional[int] = ..., compute_us: _Optional[int] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelEntry]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelEntry, _Mapping]]] = ...) -> None: ...

class ModelEntry(_message.Message):
    __slots__ = ("name", "version", "state", "reason", "preferred")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    state: str
    reason: str
    preferred: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., preferred: bool = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("name", "version", "family", "layer_sizes", "activation", "output", "cost", "parameter_count", "input_shape", "classes", "max_images_per_request", "max_message_bytes", "metrics", "members", "rejects", "sha256", "inputs")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    LAYER_SIZES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGES_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    family: str
    layer_sizes: _containers.RepeatedScalarFieldContainer[int]
    activation: str
    output: str
    cost: str
    parameter_count: int
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    classes: int
    max_images_per_request: int
    max_message_bytes: int
    metrics: _containers.ScalarMap[str, float]
    members: int
    rejects: bool
    sha256: str
    inputs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., family: _Optional[str] = ..., layer_sizes: _Optional[_Iterable[int]] = ..., activation: _Optional[str] = ..., output: _Optional[str] = ..., cost: _Optional[str] = ..., parameter_count: _Optional[int] = ..., input_shape: _Optional[_Iterable[int]] = ..., classes: _Optional[int] = ..., max_images_per_request: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., members: _Optional[int] = ..., rejects: bool = ..., sha256: _Optional[str] = ..., inputs: _Optional[_Iterable[str]] = ...) -> None: ...
