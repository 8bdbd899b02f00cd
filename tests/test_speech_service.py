"""Spoken digits over both APIs: every way to send them, and what is refused."""

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import jax
import numpy as np
import pytest
from scipy.io import wavfile
from serving import serve_async, serve_sync, stub_model
from voices import hummed

from jaxnn import answers, checkpoint, models
from jaxnn.data import features, speech, wav
from jaxnn.errors import CheckpointError, ConfigError
from jaxnn.models import Spec
from service import inputs, preparing, repository, tensors
from service.calling import questions
from service.client import DigitClient
from service.errors import InvalidRequest
from service.outputs import packed
from service.pb import digits_pb2, digits_pb2_grpc, open_inference_grpc_pb2_grpc
from service.pb import open_inference_grpc_pb2 as pb
from service.predictor import Predictor, lengths_of
from service.repository import ServedModel, load_model

SPEC = Spec("lstm", (1600, 3, 10), "tanh", "softmax", "cross_entropy", architecture="speech")
SPEECH = inputs.kind_of(SPEC)
COMPILATION = "/jax/core/compile/backend_compile_duration"
# Words of 5 to 40 steps, cut off while they are loud: silence would be cut off again. As many as a
# model is tried on, for which the network is compiled already.
SECONDS = (0.2, 1.4, 0.5, 0.9, 0.7, 0.15, 1.1, 0.4, 0.6, 0.8, 0.3, 1.0, 0.25)
SOUNDS = [hummed(at % 10, seconds)[: int(6000 * seconds)] for at, seconds in enumerate(SECONDS)]
FILES = [wav.encode(sound) for sound in SOUNDS]
PCM = [wavfile.read(io.BytesIO(file))[1] for file in FILES]
ROWS = np.stack([speech.prepare(wav.decode(file, "it")) for file in FILES])


def padded(clips: list[np.ndarray]) -> np.ndarray:
    longest = max(map(len, clips))
    return np.stack([np.pad(clip, (0, longest - len(clip))) for clip in clips])


def save(path: Path, spec: Spec) -> Path:
    """A network that nobody trained, with weights so large that sounds differ."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(models.build(spec).init, jax.random.key(1))
    params = jax.tree.map(lambda leaf: rng.normal(0, 2, leaf.shape).astype("f4"), shapes)
    checkpoint.save(path, params, spec)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    path = save(tmp_path_factory.mktemp("model") / "words.safetensors", SPEC)
    return load_model(path, "words", "1", proof=1.0, buckets=(2, 1024))


@pytest.fixture(scope="module")
def truth(model: ServedModel) -> answers.Answers:
    return answers.answer(model.file, ROWS)


def v2(name: str, kind: str, shape: tuple[int, ...], raw: bytes, **given: int) -> Any:
    request = pb.ModelInferRequest(model_name="words")
    request.inputs.add(name=name, datatype=kind, shape=shape)
    request.raw_input_contents.append(raw)
    for parameter, value in given.items():
        request.parameters[parameter].int64_param = value
    return request


def typed(name: str, kind: str, shape: tuple[int, ...], **contents: Any) -> Any:
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name=name, datatype=kind, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return request


def sounds(*given: tuple[bytes, int]) -> digits_pb2.ClassifyRequest:
    each = [digits_pb2.Sound(samples=samples, sample_rate=rate) for samples, rate in given]
    return digits_pb2.ClassifyRequest(sounds=digits_pb2.Sounds(sounds=each))


def recordings(*files: bytes) -> digits_pb2.ClassifyRequest:
    return digits_pb2.ClassifyRequest(recordings=digits_pb2.Recordings(files=files))


N = len(SOUNDS)
V1 = {
    "features": digits_pb2.ClassifyRequest(features=ROWS.tobytes()),
    "recordings": recordings(*FILES),
    "sounds": sounds(*((clip.tobytes(), 0) for clip in PCM)),
    "sounds, with their rate": sounds(*((clip.tobytes(), 8000) for clip in PCM)),
}
FLOATS = padded([np.float32(clip / 2**15) for clip in PCM])
V2 = {
    "features": v2("features", "UINT8", (N, 40, 40), ROWS.tobytes()),
    "flat features": v2("features", "UINT8", (N, 1600), ROWS.tobytes()),
    "recordings": v2("recordings", "BYTES", (N,), packed(FILES)),
    "floats": v2("audio", "FP32", FLOATS.shape, FLOATS.tobytes(), sample_rate=8000),
    "integers": v2("audio", "INT16", FLOATS.shape, padded(PCM).tobytes()),
    "typed floats": typed("audio", "FP32", FLOATS.shape, fp32_contents=FLOATS.ravel().tolist()),
    "typed integers": typed(
        "audio", "INT16", FLOATS.shape, int_contents=padded(PCM).ravel().tolist()
    ),
}


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Everything that XLA compiles during a test."""
    seen: list[str] = []

    def listen(event: str, duration: float, **_: str | int) -> None:
        if event == COMPILATION:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def ask_both(channel: grpc.Channel) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Both APIs: a request to labels, scores and the model's version."""
    ours = digits_pb2_grpc.DigitClassifierStub(channel)
    theirs = open_inference_grpc_pb2_grpc.GRPCInferenceServiceStub(channel)

    def first(request: Any) -> tuple[list[int], np.ndarray]:
        found = ours.Classify(request, timeout=30)
        return list(found.labels), np.array(found.scores, np.float32).reshape(-1, 10)

    def second(request: Any) -> tuple[list[int], np.ndarray]:
        found = theirs.ModelInfer(request, timeout=30)
        if not found.raw_output_contents:
            labels, scores = found.outputs[0].contents, found.outputs[1].contents
            return list(labels.int64_contents), np.float32(scores.fp32_contents).reshape(-1, 10)
        labels, scores = found.raw_output_contents[:2]
        return np.frombuffer(labels, "<i8").tolist(), np.frombuffer(scores, "<f4").reshape(-1, 10)

    return first, second


def test_every_way_of_sending_gives_the_offline_answer(
    model: ServedModel, truth: answers.Answers, compilations: list[str]
) -> None:
    """However the words are cut, padded and put together; and nothing is compiled for it."""
    before = list(compilations)
    assert len(set(truth.labels.tolist())) > 1 and np.ptp(truth.scores, axis=0).max() > 0.1
    steps = lengths_of(ROWS, 40)
    assert steps.min() < 10 and steps.max() == 40  # each bucket of lengths is needed

    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            first, second = ask_both(channel)
            asked = [(first, request) for request in V1.values()]
            asked += [(second, request) for request in V2.values()]
            for ask, request in asked:
                labels, scores = ask(request)
                assert labels == truth.labels.tolist()
                np.testing.assert_allclose(scores, truth.scores, rtol=0, atol=2e-5)
            for index, length in enumerate(steps.tolist()):  # alone, with no step too many
                row = ROWS[index, : 40 * length]
                labels, scores = second(v2("features", "UINT8", (1, length, 40), row.tobytes()))
                assert labels == [truth.labels[index]]
                np.testing.assert_allclose(scores[0], truth.scores[index], rtol=0, atol=2e-5)
            for length in range(1, 41):  # every length there is
                second(v2("features", "UINT8", (3, length, 40), bytes([9]) * 120 * length))
        with DigitClient(target) as client:
            found = client.classify_recordings(FILES)
            assert found.labels.tolist() == truth.labels.tolist()
            np.testing.assert_allclose(found.scores, truth.scores, rtol=0, atol=2e-5)

    assert isinstance(model.predictor, Predictor)
    compiled = model.predictor.compile_count
    serve_sync(model, scenario)
    assert compilations == before
    assert model.predictor.compile_count == compiled == 3  # lengths of the one bucket that is left


def test_a_word_that_is_nothing_but_padding_is_answered(model: ServedModel) -> None:
    rows = np.zeros((N, 1600), np.uint8)
    rows[1, 40 * 39] = 7  # the last step only
    found = model.predictor(rows, True)
    np.testing.assert_allclose(found[:, :10], answers.answer(model.file, rows).scores, atol=2e-5)


def test_lengths_count_to_the_last_step() -> None:
    rows = np.zeros((5, 3, 2), np.uint8)
    rows[1, 0] = rows[2, 2] = rows[3, :2] = 1
    rows[4, 1, 1] = 1  # no step: the first byte says whether there is one
    assert lengths_of(rows.reshape(5, 6), 2).tolist() == [0, 1, 3, 2, 0]


def test_both_apis_tell_what_the_model_takes(model: ServedModel) -> None:
    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            theirs = open_inference_grpc_pb2_grpc.GRPCInferenceServiceStub(channel)
            told = theirs.ModelMetadata(pb.ModelMetadataRequest(name="words")).inputs
            listed = [(one.name, one.datatype, list(one.shape)) for one in told]
            assert listed == [
                ("features", "UINT8", [-1, -1, 40]),
                ("audio", "FP32", [-1, -1]),
                ("recordings", "BYTES", [-1]),
            ]
            config = theirs.ModelConfig(pb.ModelConfigRequest(name="words")).config.input
            assert [(one.name, list(one.dims), one.optional) for one in config] == [
                ("features", [-1, 40], False), ("audio", [-1], True), ("recordings", [1], True),
            ]  # fmt: skip
            kinds = [one.data_type for one in config]
            assert kinds == [pb.TYPE_UINT8, pb.TYPE_FP32, pb.TYPE_STRING]
        with DigitClient(target) as client:
            about = client.model()
            assert list(about.input_shape) == [40, 40]
            assert list(about.inputs) == ["features", "recordings", "sounds"]
            assert (about.family, about.rejects) == ("lstm", False)

    serve_sync(model, scenario)


def test_a_bench_asks_for_words_where_the_model_hears() -> None:
    """As long as spoken digits are; with a shape it is what is sent, by the other API."""

    async def scenario(target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            line = questions.Line(target, channel, (), 30.0)
            first = await questions.of_v1(line, questions.Wanted(rows=7))
            shape = questions.Wanted(rows=7, shape=(18, 40))
            second = await questions.of_v2(line, shape)
            third = await questions.of_v2(line, questions.Wanted(rows=7))  # as the metadata say
            with pytest.raises(ConfigError, match="give the shape of one image"):
                await questions.of_v2(line, questions.Wanted(input="audio"))
        sent = [digits_pb2.ClassifyRequest.FromString(data) for data in first.requests]
        lengths = [
            lengths_of(np.frombuffer(one.features, "u1").reshape(7, 1600), 40) for one in sent
        ]
        assert 10 <= np.min(lengths) < 14 and 20 < np.max(lengths) <= 25
        (raw,) = pb.ModelInferRequest.FromString(second.requests[0]).raw_input_contents
        assert len(raw) == 7 * 18 * 40 and min(raw) == 1
        (tensor,) = pb.ModelInferRequest.FromString(third.requests[0]).inputs
        assert (tensor.name, list(tensor.shape)) == ("features", [7, questions.STEPS, 40])

    serve_async(stub_model(**SPEC._asdict()), scenario)


def test_a_model_of_images_tells_so_too() -> None:
    assert stub_model().takes is inputs.IMAGES
    assert inputs.IMAGES.fields == ("pixels", "encoded")
    with pytest.raises(ConfigError, match="takes 35 inputs, expected 784"):
        inputs.kind_of(Spec(sizes=(35, 10)))


WORDS = "features, recordings or sounds"
WRONG_V1 = {
    "pixels for words": ("words", digits_pb2.ClassifyRequest(pixels=bytes(784)),
                         f"has pixels, but the model takes speech: set {WORDS}"),
    "pictures for words": ("words", digits_pb2.ClassifyRequest(
        encoded=digits_pb2.EncodedImages(images=[b"x"])), "has encoded, but the model takes spee"),
    "words for pixels": ("images", recordings(FILES[0]),
                         "has recordings, but the model takes images: set pixels or encoded"),
    "nothing": ("words", digits_pb2.ClassifyRequest(), f"has no input: set {WORDS}"),
    "half a row": ("words", digits_pb2.ClassifyRequest(features=bytes(2401)),
                   "features has 2401 bytes, expected N x 1600: send 40 steps of 40 bytes"),
    "no row": ("words", digits_pb2.ClassifyRequest(features=b""), "features has 0 bytes"),
    "many rows": ("words", digits_pb2.ClassifyRequest(features=bytes(1600 * 9)),
                  "has 9 rows, over this server's limit of 8"),
    "no file": ("words", recordings(), "recordings holds no file"),
    "many files": ("words", recordings(*9 * [b"RIFF"]), "has 9 recordings, over"),
    "no WAV file": ("words", recordings(FILES[0], b"GIF8"), "recording 1 is not a WAV file"),
    "half a WAV file": ("words", recordings(FILES[0][:50], FILES[1][:30]), "recording 1 is dama"),
    "no sounds": ("words", sounds(), "sounds holds no sound"),
    "many sounds": ("words", sounds(*9 * [(b"ab", 0)]), "has 9 sounds, over"),
    "half a sample": ("words", sounds((b"ab", 0), (b"abc", 0)), "sound 1 has 3 bytes, expected an"),
    "silent for want of samples": ("words", sounds((b"", 0)), "sound 0 holds no sound"),
    "a rate of few": ("words", sounds((b"ab", 0), (b"ab", 3999)), "sound 1 has 3999 samples a sec"),
    "a rate of many": ("words", sounds((b"ab", 2**32 - 1)), "4294967295 samples a second, expecte"),
    "a long sound": ("words", sounds((bytes(2 * 80_001), 0)), "sound 0 lasts 10.0 s, expected at"),
}  # fmt: skip
WRONG_V2 = {
    "pictures for words": (SPEECH, v2("pictures", "BYTES", (1,), packed([b"x"])),
                           r"input is 'pictures' of datatype 'BYTES', but the model takes speech: "
                           r"send features \(UINT8, \[N, any, 40\] or \[N, 1600\]\), audio \(FP32 "
                           r"or INT16, \[N, any\]\) or recordings"),
    "words for pictures": (inputs.IMAGES, v2("audio", "FP32", (1, 1), bytes(4)),
                           r"input is 'audio' of datatype 'FP32', but the model takes images: send "
                           r"images \(UINT8 or FP32, "),
    "no features": (SPEECH, v2("features", "UINT8", (0, 9, 40), b""), "send one row or more"),
    "no audio": (SPEECH, v2("audio", "FP32", (0, 9), b""), r"\[0, 9\]: send one row or more"),
    "no recordings": (SPEECH, v2("recordings", "BYTES", (0,), b""), "send one row or more"),
    "bands": (SPEECH, v2("features", "UINT8", (1, 40, 39), b""), r"shape \[1, 40, 39\], expected"),
    "no steps": (SPEECH, v2("features", "UINT8", (1, 0, 40), b""), "has the shape"),
    "many steps": (SPEECH, v2("features", "UINT8", (1, 41, 40), b""), "has 41 steps, expected 1 t"),
    "endless steps": (SPEECH, v2("features", "UINT8", (1, 2**62, 40), b""), "steps, expected 1 to"),
    "few bytes": (SPEECH, v2("features", "UINT8", (2, 5, 40), bytes(399)), "399 raw bytes, and it"),
    "float features": (SPEECH, v2("features", "FP32", (1, 1600), b""), "of datatype 'FP32', but"),
    "no samples": (SPEECH, v2("audio", "FP32", (1, 0), b""), r"has the shape \[1, 0\]"),
    "endless samples": (SPEECH, v2("audio", "INT16", (8, 2**62), bytes(16)), "16 raw bytes, and"),
    "many clips": (SPEECH, v2("audio", "INT16", (9, 1), bytes(18)), "limit of 8"),
    "loud": (SPEECH, typed("audio", "INT16", (1, 1), int_contents=[2**15]),
             "int_contents holds 32768, expected -32768 to 32767 for INT16"),
    "a rate of few": (SPEECH, v2("audio", "FP32", (1, 1), bytes(4), sample_rate=7),
                      "audio 0 has 7 samples a second, expected 4000 to 384000: set its sa"),
    "a rate below": (SPEECH, v2("audio", "FP32", (1, 1), bytes(4), sample_rate=-7), "rate is -7"),
}  # fmt: skip


@pytest.fixture(scope="module")
def refusals() -> dict[str, str]:
    """What a server of either kind says to each of WRONG_V1."""
    found = {}
    for kind, spec in (("words", SPEC._asdict()), ("images", {})):

        def scenario(target: str, kind: str = kind) -> None:
            with grpc.insecure_channel(target) as channel:
                ours = digits_pb2_grpc.DigitClassifierStub(channel)
                for name, (model, request, _) in WRONG_V1.items():
                    if model == kind:
                        with pytest.raises(grpc.RpcError) as caught:
                            ours.Classify(request, timeout=30)
                        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
                        found[name] = caught.value.details()

        serve_sync(stub_model(**spec), scenario, max_images_per_request=8)
    return found


@pytest.mark.parametrize("name", WRONG_V1)
def test_what_cannot_be_is_refused_in_one_sentence(name: str, refusals: dict[str, str]) -> None:
    assert WRONG_V1[name][2] in refusals[name]
    assert len(refusals[name]) < 300 and "\n" not in refusals[name]


@pytest.mark.parametrize("name", WRONG_V2)
def test_inputs_that_cannot_be_are_refused(name: str) -> None:
    kind, request, words = WRONG_V2[name]
    with pytest.raises(InvalidRequest, match=words):
        tensors.inputs(request, request.raw_input_contents, 8, kind)


def wav_file(samples: np.ndarray, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


def declared(at: int, form: str, value: int) -> bytes:
    """A recording with one number of its header changed."""
    blob = bytearray(FILES[0])
    struct.pack_into(form, blob, at, value)
    return bytes(blob)


BOMBS = {
    "an hour, of a byte a sample": wav_file(np.zeros(3600 * 4000, np.uint8), 4000),
    "thousands of channels": wav_file(np.zeros((200, 40_000), np.uint8)),
    "no channel": declared(22, "<H", 0),
    "a rate of 0": declared(24, "<I", 0),
    "a rate without end": declared(24, "<I", 2**32 - 1),
    "no bits": declared(34, "<H", 0),
    "sizes without end": declared(40, "<I", 2**32 - 1),
    "numbers that are none": wav_file(np.full(999, np.nan, np.float32)),
    "numbers too large": wav_file(np.full(999, np.inf, np.float32)),
    "a compressed form": declared(20, "<H", 17),
    "channels of a sum without end": wav_file(np.full((800, 2), 1.7e308)),
    "nothing but chunks": FILES[0][:36] + 10**5 * (b"data" + bytes([2, 0, 0, 0, 1, 1])),
}


@pytest.mark.parametrize("name", BOMBS)
def test_files_that_lie_are_refused_or_heard(name: str) -> None:
    try:
        row = preparing.recording_to_row(BOMBS[name], "recording 3")
    except InvalidRequest as error:
        assert str(error).startswith("recording 3 ") and len(str(error)) < 300
    else:
        heard = ("thousands of channels", "sizes without end", "no bits")
        assert name in (*heard, "channels of a sum without end")
        assert row.shape == (1600,) and row.dtype == np.uint8


def test_errors_name_the_input_that_was_sent() -> None:
    clip = v2("audio", "FP32", (1, 9), np.full(9, np.nan, "<f4").tobytes())
    assert tensors.inputs(clip, clip.raw_input_contents, 8, SPEECH).what == "audio"
    assert preparing.sounds([]).what == "sound"


def test_sounds_are_heard_as_files_are() -> None:
    """At any rate, of any level; zeros at the end of a padded one are none of it."""
    low, high = preparing.RATES
    assert (low, high) == wav.RATES and preparing.RATE == wav.RATE
    for rate in (low, 11_025, 44_100, high):
        clip = (3 * np.sin(np.arange(rate // 5) * 1500 / rate)).astype(np.float32)  # above 1
        sound = preparing.Sound(clip, rate)
        expected = speech.prepare(wav.decode(wav_file(clip, rate), "it"))
        assert np.array_equal(preparing.sound_to_row(sound, "it"), expected)
        longer = preparing.Sound(np.pad(clip, (0, 777)), rate, padded=True)
        assert np.array_equal(preparing.sound_to_row(longer, "it"), expected)
    silence = preparing.Sound(np.zeros(900, np.int16), 8000, padded=True)
    assert preparing.sound_to_row(silence, "it").any()


def test_a_model_of_other_rows_than_sounds_become_is_not_served(tmp_path: Path) -> None:
    path = save(tmp_path / "m.safetensors", SPEC._replace(sizes=(1200, 3, 10)))
    with pytest.raises(ConfigError, match="30 steps of 40 bands, but sounds are prepared as 40"):
        load_model(path, "words")


def test_a_model_whose_programs_disagree_is_not_served(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = repository._trials(SPEECH)
    assert labels is None
    steps = lengths_of(rows, 40)
    assert steps.min() < 20 and steps.max() == features.STEPS and 20 < np.median(steps) < 30
    repository._prove(model, "it", rows, labels, 1.0)
    other = jax.tree.map(lambda leaf: leaf * 1.1, model.file.params)
    monkeypatch.setitem(model.__dict__, "file", model.file._replace(params=other))
    with pytest.raises(CheckpointError, match="it answers sounds otherwise when compiled, by"):
        repository._prove(model, "it", rows, labels, 1.0)
