"""Recordings of a folder or zip, split, and made into rows of features; and archives that lie."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voices import hummed, spoken

from jaxnn.data import features, recording_files, speech, wav
from jaxnn.errors import ConfigError, DataError

SPEAKERS = ("anna", "bert")
TAKES = 8


def blob(digit, speaker="anna", take=0):
    """A recording with silence around it."""
    sound = hummed(digit, 0.2 + 0.01 * take, SPEAKERS.index(speaker))
    return wav.encode(np.pad(sound, 2000))


FILES = {
    f"{digit}_{speaker}_{take}.wav": blob(digit, speaker, take)
    for digit in (0, 7)
    for speaker in SPEAKERS
    for take in range(TAKES)
}


def packed(files=FILES, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def put(tmp_path):
    """A function that writes a file, and returns where it lies."""

    def write(content, name="digits.zip"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    path = tmp_path_factory.mktemp("speech") / "digits.zip"
    path.write_bytes(packed())
    return speech.load(path)


def test_a_folder_and_a_zip_are_the_same(recordings, put, tmp_path):
    folder = tmp_path / "set" / "recordings"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text("passed over")
    (folder / "._0_anna_0.wav").write_bytes(b"hidden")
    deep = put(packed({f"some/where/{name}": content for name, content in FILES.items()}))
    assert [each[:3] for each in recordings] == [
        (digit, speaker, take) for digit in (0, 7) for speaker in SPEAKERS for take in range(TAKES)
    ]
    for path in (folder, folder.parent, deep):
        found = speech.load(path)
        for one, other in zip(found, recordings, strict=True):
            assert one[:3] == other[:3]
            np.testing.assert_array_equal(one.samples, other.samples)
        assert recording_files.checksum(path) == recording_files.checksum(folder)


def test_silence_around_a_word_is_cut_off(recordings):
    lengths = [len(each.samples) / wav.RATE for each in recordings]
    truth = [0.2 + 0.01 * each.take for each in recordings]
    # A fading chord is heard until shortly before its end; 0.05 s are kept before and after.
    np.testing.assert_allclose(lengths, truth, atol=0.12)
    assert max(lengths) < 0.2 + 0.01 * TAKES + 0.12


def test_the_first_five_of_each_speaker_are_for_testing(recordings):
    train, test = speech.split(recordings)
    assert {each.take for each in test} == {0, 1, 2, 3, 4}
    assert {each.take for each in train} == {5, 6, 7}
    assert len(train) + len(test) == len(recordings)


def test_one_speaker_can_be_held_out(recordings):
    train, test = speech.split(recordings, "bert")
    assert {each.speaker for each in train} == {"anna"}
    assert {each.speaker for each in test} == {"bert"}
    assert len(train) == len(test) == 16


def test_a_split_that_cannot_be(recordings):
    with pytest.raises(ConfigError, match="speaker 'carl' is unknown: choose one of anna, bert"):
        speech.split(recordings, "carl")
    with pytest.raises(DataError, match="none is left to train on: indices 0 to 4"):
        speech.split([each for each in recordings if each.take < 5])
    with pytest.raises(DataError, match="none is left to test on"):
        speech.split([each for each in recordings if each.take > 4])
    with pytest.raises(DataError, match="none is left to train on: anna is held out"):
        speech.split([each for each in recordings if each.speaker == "anna"], "anna")


def test_rows_hold_the_features_of_their_recordings(recordings):
    train, test = speech.split(recordings)
    made = speech.dataset(train, test)
    assert made.train_images.shape == (12, features.SIZE)
    assert made.train_images.dtype == made.train_labels.dtype == np.uint8
    truth = {speech.prepare(each.samples).tobytes(): each.digit for each in recordings}
    pairs = [*zip(made.train_images, made.train_labels, strict=True)]
    pairs += zip(made.test_images, made.test_labels, strict=True)
    assert [truth[image.tobytes()] for image, _ in pairs] == [label for _, label in pairs]
    assert [label for _, label in pairs[12:]] == [each.digit for each in test]


def test_there_is_no_copy_of_what_is_for_validation(recordings):
    train, test = speech.split(recordings)
    made = speech.dataset(train, test, validation=4, copies=3, seed=5)
    assert made.train_images.shape == (8 * 4 + 4, features.SIZE)
    plain = {speech.prepare(each.samples).tobytes(): each for each in train}
    kept = [plain[image.tobytes()] for image in made.train_images[-4:]]
    # One of every digit and speaker.
    assert {(each.digit, each.speaker) for each in kept} == {
        (digit, speaker) for digit in (0, 7) for speaker in SPEAKERS
    }
    assert [each.digit for each in kept] == made.train_labels[-4:].tolist()
    learned = [image.tobytes() for image in made.train_images[:-4]]
    assert sum(image in plain for image in learned) == 8
    assert not {image.tobytes() for image in made.train_images[-4:]} & set(learned)
    assert np.bincount(made.train_labels[:-4])[[0, 7]].tolist() == [16, 16]


def test_a_seed_decides_the_copies(recordings):
    train, test = speech.split(recordings)
    one, same, other = (speech.dataset(train, test, copies=1, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train_images, same.train_images)
    assert (one.train_images != other.train_images).any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"copies": -1}, "copies is -1: give 0 to 100"),
        ({"copies": 101}, "copies is 101"),
        ({"validation": 12}, "validation is 12 of 12 recordings: leave some"),
        ({"validation": -1}, "validation is -1"),
    ],
)
def test_a_data_set_that_cannot_be(recordings, settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        speech.dataset(*speech.split(recordings), **settings)


def test_more_rows_than_memory_holds_are_refused(recordings, monkeypatch):
    monkeypatch.setattr(speech, "MAX_EXAMPLES", 40)
    with pytest.raises(ConfigError, match="12 recordings and 3 copies of each make 48 rows"):
        speech.dataset(*speech.split(recordings), copies=3)


ONE = {"7_anna_0.wav": blob(7)}
HUGE = b"RIFF" + bytes(100 * 2**20)  # deflates to 100 kB
NOT_USED = {
    "no zip": (b"PK no zip", "not a whole zip file"),
    "cut": (packed()[:-40], "not a whole zip file"),
    "empty": (packed({}), "holds no recordings: expected files named"),
    "other files": (packed({"a.txt": b"a"}), "holds no recordings"),
    "another name": (packed({"seven.wav": blob(7)}), "seven.wav is no name of a spoken digit"),
    "no digit": (packed({"x_anna_1.wav": blob(7)}), "expected {digit}_{speaker}_{index}.wav"),
    "twice": (packed({"a/7_anna_0.wav": blob(7), "b/7_anna_0.wav": blob(7)}), "is there twice"),
    "no sound": (packed({"7_anna_0.wav": b"text"}), "7_anna_0.wav is not a WAV file"),
    "a bomb": (packed({"7_anna_0.wav": HUGE}), "7_anna_0.wav has more than 8,388,608 bytes"),
    "bzip2": (packed(ONE, zipfile.ZIP_BZIP2), "another method than deflate"),
    "too long": (packed({"7_anna_0.wav": wav.encode(np.zeros(88_000))}), "lasts 11.0 s"),
}


@pytest.mark.parametrize("name", NOT_USED)
def test_an_archive_that_cannot_be_used_is_told_in_a_sentence(name, put):
    content, sentence = NOT_USED[name]
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=sentence):
            speech.load(put(content))
        # A buffer of 64 MiB is what a file is read into; what the bomb holds would be more.
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_a_password_is_told_from_damage(put):
    content = bytearray(packed(ONE))
    content[6] |= 1  # the flag in the file's own header, and that in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match="protected by a password"):
        speech.load(put(bytes(content)))


def test_totals_are_bounded(put, monkeypatch):
    path = put(packed())
    monkeypatch.setattr(recording_files, "MAX_ALL", 50_000)
    with pytest.raises(DataError, match="more than 50,000 bytes of sound"):
        speech.load(path)
    monkeypatch.setattr(recording_files, "MAX_RECORDINGS", 31)
    with pytest.raises(DataError, match="more than 31 files"):
        speech.load(path)


def test_hours_are_bounded(put, monkeypatch):
    monkeypatch.setattr(speech, "MAX_TOTAL", 2.0)
    with pytest.raises(DataError, match=r"more than .* hours of sound"):
        speech.load(put(packed()))


def test_paths_that_are_neither(tmp_path, put):
    for path in (tmp_path / "none", put(b"", "digits.tar")):
        with pytest.raises(DataError, match=r"is neither a folder nor a \.zip"):
            speech.load(path)
    with pytest.raises(DataError, match="holds no recordings"):
        (tmp_path / "empty").mkdir()
        speech.load(tmp_path / "empty")


SMALL = packed(ONE)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_never_does_more_than_that(tmp_path_factory, data):
    content = bytearray(SMALL)
    start = SMALL.index(b"PK\x01\x02")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(start, len(SMALL) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(content)
    try:
        assert len(speech.load(path)) == 1
    except DataError as error:
        assert "\n" not in str(error)


def test_a_directory_that_points_before_the_file_is_damage(put):
    content = bytearray(SMALL)
    at = content.index(b"PK\x05\x06") + 16  # where the directory lies
    content[at : at + 4] = struct.pack("<I", struct.unpack("<I", content[at : at + 4])[0] + 99)
    with pytest.raises(DataError, match="not a whole zip file"):
        speech.load(put(bytes(content)))


def test_another_voice_says_the_same_digit():
    """Rows of one voice tell the digits of the same voice, faster and higher, apart."""
    known = np.stack([speech.prepare(spoken(digit)) for digit in range(10)]).astype(float)
    for options in (("-s", "150"), ("-p", "70")):
        heard = np.stack([speech.prepare(spoken(digit, *options)) for digit in range(10)])
        nearest = ((heard[:, None] - known) ** 2).sum(axis=2).argmin(axis=1)
        assert nearest.tolist() == list(range(10))
