import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vae_jax.records import layout, tfrecord
from vae_jax.records.statistics import ArraySpec, Statistics

# What tf.io.TFRecordWriter (TensorFlow 2.21) wrote for the records b"", b"one" and bytes(range(6)).
TENSORFLOW_BYTES = bytes.fromhex(
    "000000000000000029039807d8ea82a20300000000000000b099490e6f6e650140550806"
    "000000000000007369d537000102030405eb6cabac"
)
TENSORFLOW_RECORDS = [b"", b"one", bytes(range(6))]


def write(path, payloads):
    with open(path, "wb") as file:
        for payload in payloads:
            tfrecord.write_record(file, payload)


def are_sound(pieces):
    ends = np.cumsum([len(piece) for piece in pieces])
    return tfrecord.are_sound(b"".join(pieces), np.append(0, ends[:-1]), ends)


def test_the_framing_is_byte_for_byte_what_tensorflow_writes(tmp_path):
    write(tmp_path / "x", TENSORFLOW_RECORDS)
    assert (tmp_path / "x").read_bytes() == TENSORFLOW_BYTES


def test_what_tensorflow_wrote_is_sound():
    pieces = [TENSORFLOW_BYTES[:16], TENSORFLOW_BYTES[16:35], TENSORFLOW_BYTES[35:]]
    assert [piece[12:-4] for piece in pieces] == TENSORFLOW_RECORDS
    assert are_sound(pieces).all()


@given(payloads=st.lists(st.binary(max_size=100), min_size=1, max_size=5), data=st.data())
def test_every_flipped_bit_and_every_truncation_is_detected(payloads, data):
    pieces = []
    for payload in payloads:
        file = io.BytesIO()
        tfrecord.write_record(file, payload)
        pieces.append(file.getvalue())
    assert are_sound(pieces).all()
    hit = data.draw(st.integers(0, len(pieces) - 1))
    flipped = bytearray(pieces[hit])
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = pieces[hit][: data.draw(st.integers(0, len(flipped) - 1))]
    for damaged in (bytes(flipped), cut, pieces[hit] + b"\0"):
        sound = are_sound([*pieces[:hit], damaged, *pieces[hit + 1 :]])
        assert np.flatnonzero(~sound).tolist() == [hit]


def test_an_example_survives_serialisation():
    arrays = {
        "features": ArraySpec((None, 3), "float16"),
        "lyrics": ArraySpec((2,), "float32"),
    }
    example = {
        "id": "ü 日本語",
        "duration": 1.5,
        "features": np.arange(12, dtype=np.float16).reshape(4, 3),
        "lyrics": np.array([0.1, -2], np.float32),
    }
    data = layout.serializer(arrays)(example)
    read = layout.tfds_features(arrays).deserialize_example_np(data)
    assert read["id"].decode() == "ü 日本語"
    assert (read["features"] == example["features"]).all()
    assert read["lyrics"].tobytes() == example["lyrics"].tobytes()


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    offset=st.floats(-1e4, 1e4),
    seed=st.integers(0, 100),
)
def test_merged_statistics_equal_those_of_all_rows_in_float64(sizes, offset, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(offset, 1, (size, 3)).astype(np.float32) for size in sizes]
    merged = Statistics.of(parts[0])
    for part in parts[1:]:
        merged = merged.merge(Statistics.of(part))
    whole = np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(merged.mean, whole.mean(axis=0), rtol=1e-12)
    if len(whole) > 1:
        np.testing.assert_allclose(merged.std, whole.std(axis=0), rtol=1e-7)
    assert Statistics.from_dict(merged.to_dict()).mean.tobytes() == merged.mean.tobytes()


def test_a_constant_feature_has_a_standard_deviation_of_one():
    constant = Statistics.of(np.full((5, 2), 1e4 / 3, np.float32))
    assert constant.std.tolist() == [1, 1]


def test_a_spectrogram_is_measured_over_its_frames():
    array = np.random.default_rng(0).normal(0, 1, (7, 4))
    assert Statistics.of(array).count == 7
