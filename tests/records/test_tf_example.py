"""Compared with TFDS's own parser, which compares with TensorFlow's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae_jax.records import layout, tf_example
from vae_jax.records.statistics import ArraySpec

ARRAYS = {
    "frames": ArraySpec((None, 3), "float16"),
    "vector": ArraySpec((40,), "float32"),
    "flag": ArraySpec((), "uint8"),
}
SERIALIZE = layout.serializer(ARRAYS)
short = st.text(max_size=300)


def example(seed=0, num_frames=2, id_=""):
    rng = np.random.default_rng(seed)
    return {
        "id": id_,
        "duration": 2.25,
        "frames": rng.normal(0, 1, (num_frames, 3)).astype(np.float16),
        "vector": rng.normal(0, 1, 40).astype(np.float32),
        "flag": np.uint8(seed % 2),
    }


def locate(serialised, gap=b""):
    """Locate the values of examples that lie side by side."""
    end = np.cumsum([len(gap) + len(data) for data in serialised])
    begin = end - [len(data) for data in serialised]
    content = b"".join(gap + data for data in serialised)
    return content, tf_example.locate(np.frombuffer(content, np.uint8), begin, end)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from([0, 1, 5, 30, 3000]), short), min_size=1, max_size=5)
)
def test_values_are_found_where_tfds_finds_them(rows):
    wanted = [example(seed, num_frames, id_) for seed, (num_frames, id_) in enumerate(rows)]
    serialised = [SERIALIZE(one) for one in wanted]
    content, places = locate(serialised, gap=b"gap")
    theirs = [layout.tfds_features(ARRAYS).deserialize_example_np(data) for data in serialised]
    assert places.keys() == wanted[0].keys() - {"duration"}
    assert tf_example.values(content, places["id"]) == [found["id"] for found in theirs]
    for name in ARRAYS:
        found = [np.asarray(one[name]).tobytes() for one in theirs]
        assert tf_example.values(content, places[name]) == found


def test_examples_of_other_features_are_refused():
    others = {"other": ArraySpec((2,), "float32")}
    given_values = {"id": "", "duration": 1.0, "other": np.zeros(2, np.float32)}
    other = layout.serializer(others)(given_values)
    with pytest.raises(ValueError, match="not those of an example"):
        locate([SERIALIZE(example()), other])


@given(data=st.data())
def test_whatever_the_bytes_are_they_are_located_within_or_refused(data):
    serialised = bytearray(SERIALIZE(example(id_="track")))
    for _ in range(data.draw(st.integers(1, 4))):
        serialised[data.draw(st.integers(0, len(serialised) - 1))] = data.draw(st.integers(0, 255))
    size = data.draw(st.integers(0, len(serialised)))
    try:
        content, places = locate([bytes(serialised[:size])])
    except (ValueError, UnicodeDecodeError):
        return
    for place in places.values():
        assert 0 <= place.begin[0] <= place.begin[0] + place.size[0] <= len(content)
