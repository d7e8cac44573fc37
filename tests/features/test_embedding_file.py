import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from pyarrow import parquet

from vae_jax import manifest
from vae_jax.config import get_config
from vae_jax.embedding import baselines
from vae_jax.errors import UserError
from vae_jax.features import embedding_file, extract
from vae_jax.manifest import Manifest
from vae_jax.records import reader
from vae_jax.storage import files

IDS = [f"track-{i}" for i in range(7)]
HALVES = [*np.float16([1, 2, 3, 4])]  # as older versions of pyarrow demand them
PAIR = pa.list_(pa.float16(), 2)
NUM_SEGMENTS = [3, 1, 2, 3, 5, 1, 4]
VECTORS = np.random.default_rng(0).normal(5, 2, (7, 4)).astype(np.float32)
SEGMENTS = np.random.default_rng(1).normal(5, 2, (7, 3, 4)).astype(np.float32)
RAGGED = np.random.default_rng(2).normal(5, 2, (sum(NUM_SEGMENTS), 4)).astype(np.float32)


def write(path, ids, array, num_segments=None):
    """Write vectors as the kind of file that the name says."""
    if path.suffix == ".npz":
        counts = {} if num_segments is None else {"num_segments": num_segments}
        np.savez(path, ids=ids, vectors=array, **counts)
    elif path.suffix == ".npy":
        np.save(path, array)
        path.with_suffix(".ids.txt").write_text("\n".join(ids) + "\n")
    else:
        rows = array if num_segments is None else np.split(array, np.cumsum(num_segments)[:-1])
        table = {"title": ids, "id": ids, "clap": [np.asarray(row).tolist() for row in rows]}
        parquet.write_table(pa.table(table), path)
    return path


@pytest.fixture
def metadata(tmp_path):
    """Return the manifest of seven tracks that has nothing but their ids."""
    files.write_csv(tmp_path / "metadata.csv", ("id",), [{"id": id_} for id_ in IDS])
    return tmp_path / "metadata.csv"


def run(metadata, path, directory):
    config = get_config().feature
    config.update(name="embedding", embedding=str(path), shard_size=3, num_workers=1)
    changed, failures = extract.extract(manifest.read(metadata), config.to_dict(), directory)
    return changed, {failure.id: failure.reason for failure in failures}


def checked(path, *ids):
    return embedding_file.check(path, Manifest(Path("metadata.csv"), ids or IDS, {}))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
def test_each_track_gets_the_vector_that_has_its_id(metadata, tmp_path, suffix):
    order = np.random.default_rng(3).permutation(7)
    ids = [*np.array(IDS)[order].tolist(), "of another collection"]
    path = write(tmp_path / f"clap.{suffix}", ids, np.append(VECTORS[order], VECTORS[:1], axis=0))
    assert run(metadata, path, tmp_path / "records") == (True, {})
    stored = reader.Records(tmp_path / "records")
    assert stored.ids.tolist() == IDS
    assert (stored.load(range(7))["features"] == VECTORS).all()
    np.testing.assert_allclose(stored.statistics["features"].mean, VECTORS.mean(axis=0), rtol=1e-6)
    assert (baselines.summaries(stored, np.arange(7))["features"] == VECTORS).all()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
def test_segments_are_stored_as_rows_and_the_baselines_see_their_mean(metadata, tmp_path, suffix):
    run(metadata, write(tmp_path / f"clap.{suffix}", IDS, SEGMENTS), tmp_path / "records")
    stored = reader.Records(tmp_path / "records")
    assert (np.stack(stored.load(range(7))["features"]) == SEGMENTS).all()
    assert stored.num_frames.tolist() == [3] * 7
    assert stored.arrays["features"].is_segments
    found = baselines.summaries(stored, np.arange(7))["features"]
    np.testing.assert_allclose(found, SEGMENTS.mean(axis=1), rtol=1e-6)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_tracks_may_differ_in_their_numbers_of_segments(metadata, tmp_path, suffix):
    path = write(tmp_path / f"clap.{suffix}", IDS, RAGGED, NUM_SEGMENTS)
    assert run(metadata, path, tmp_path / "records") == (True, {})
    stored = reader.Records(tmp_path / "records")
    assert stored.num_frames.tolist() == NUM_SEGMENTS
    assert (np.concatenate(stored.load(range(7))["features"]) == RAGGED).all()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
def test_a_track_without_a_usable_vector_fails_with_its_reason(metadata, tmp_path, suffix):
    vectors = VECTORS.astype(np.float64)
    vectors[1, 2], vectors[2, 0], vectors[3, 3] = np.nan, -np.inf, 1e300
    path = write(tmp_path / f"clap.{suffix}", IDS[:6], vectors[:6])
    _, reasons = run(metadata, path, tmp_path / "records")
    infinite = f"its values in {path} are not all finite (NaN or infinity)"
    assert reasons == {
        **{f"track-{i}": infinite for i in (1, 2, 3)},
        "track-6": f"{path} does not hold its id",
    }
    assert reader.Records(tmp_path / "records").ids.tolist() == ["track-0", "track-4", "track-5"]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    "column",
    [
        pa.array([[[1, 2]], [], None, *[[[3, 4]]] * 4]),
        pa.array([[HALVES[:2]], [], None, *[[HALVES[2:]]] * 4], pa.large_list(PAIR)),
        pa.array([[1, 2], None, None, *[[3, 4]] * 4], pa.list_(pa.float64(), 2)),
        pa.array([[1, 2], [], None, *[[3, 4]] * 4]),
    ],
)
def test_a_list_in_parquet_that_is_empty_or_null_fails_its_track_alone(metadata, tmp_path, column):
    parquet.write_table(pa.table({"id": IDS, "clap": column}), tmp_path / "clap.parquet")
    _, reasons = run(metadata, tmp_path / "clap.parquet", tmp_path / "records")
    assert sorted(reasons) == ["track-1", "track-2"]
    stored = reader.Records(tmp_path / "records").load(range(5))["features"]
    assert np.ravel(stored).tolist() == [1, 2, *[3, 4] * 4]


@pytest.mark.usefixtures("in_process")
def test_a_file_whose_vectors_are_all_unusable_is_an_error(metadata, tmp_path):
    path = write(tmp_path / "clap.npz", IDS, np.full((7, 2), np.nan))
    with pytest.raises(UserError, match=r"none of the 7 tracks .* not all finite"):
        run(metadata, path, tmp_path / "records")


@pytest.mark.usefixtures("in_process")
def test_the_content_of_the_file_decides_what_is_redone_and_not_its_time_or_place(
    metadata, tmp_path
):
    directory = tmp_path / "records"
    path = write(tmp_path / "clap.npy", IDS, VECTORS)
    run(metadata, path, directory)
    before = reader.Records(directory).fingerprint
    write(path, IDS, VECTORS)
    assert run(metadata, path, directory) == (False, {})
    for name in ("clap.npy", "clap.ids.txt"):
        (tmp_path / "moved").mkdir(exist_ok=True)
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    path = tmp_path / "moved" / "clap.npy"
    assert run(metadata, path, directory) == (False, {})
    write(path, IDS[::-1], VECTORS)  # the vectors' file is the same
    assert run(metadata, path, directory) == (True, {})
    assert (reader.Records(directory).load([0])["features"] == VECTORS[6]).all()
    write(path, IDS, VECTORS + 1)
    assert run(metadata, path, directory) == (True, {})
    assert reader.Records(directory).fingerprint != before


def test_worker_processes_find_the_file(metadata, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("clap.npy"), IDS, SEGMENTS)
    assert run(metadata, "clap.npy", tmp_path / "records") == (True, {})
    assert len(list(tmp_path.glob("records/*.tfrecord-*"))) == 3


@pytest.mark.parametrize("kind", ["text", "bytes", "numbers"])
def test_ids_are_text_bytes_or_numbers(tmp_path, kind):
    ids = np.array(["10", "20", "30"])
    ids = {"text": ids, "bytes": np.char.encode(ids), "numbers": ids.astype(int)}[kind]
    np.savez(tmp_path / "clap.npz", ids=ids, vectors=VECTORS[:3])
    assert (embedding_file.load(tmp_path / "clap.npz").find("20") == VECTORS[1]).all()


def test_a_compressed_file_and_one_in_fortran_order_are_read_alike(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", ids=IDS, vectors=SEGMENTS)
    write(tmp_path / "b.npy", IDS, np.asfortranarray(SEGMENTS))
    for name in ("a.npz", "b.npy"):
        assert (embedding_file.load(tmp_path / name).find("track-4") == SEGMENTS[4]).all()


def test_an_npy_file_is_mapped_into_memory_and_read_where_it_is_needed(tmp_path):
    found = embedding_file.load(write(tmp_path / "clap.npy", IDS, SEGMENTS))
    assert isinstance(found.vectors, np.memmap)


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"vectors": VECTORS}, "must hold 'ids' and one array"),
        ({"ids": IDS}, "must hold 'ids' and one array"),
        ({"ids": IDS, "a": VECTORS, "b": VECTORS}, "holds 'ids', 'a', 'b', but must"),
        ({"ids": IDS, "a": VECTORS[0]}, r"its array is \[4\], but must be \[N, D\] or"),
        ({"ids": IDS, "a": SEGMENTS[None]}, r"its array is \[1, 7, 3, 4\], but must be"),
        ({"ids": IDS, "a": VECTORS[:, :0]}, r"its array is \[7, 0\], .* without an empty axis"),
        ({"ids": IDS, "a": np.array(5.0)}, r"its array is \[\], but must be"),
        ({"ids": IDS[:6], "a": VECTORS}, "has 6 ids for 7 tracks"),
        ({"ids": ["b", *IDS[:5], "b"], "a": VECTORS}, "has the id 'b' twice, in its rows 1 and 7"),
        ({"ids": [" a ", "a"], "a": VECTORS[:2]}, "has the id 'a' twice"),
        ({"ids": VECTORS[:, 0], "a": VECTORS}, "its ids are .* of type float32"),
        ({"ids": [IDS], "a": VECTORS}, r"its ids are \[1, 7\] of type"),
        ({"ids": [b"\xff", b"b"], "a": VECTORS[:2]}, "cannot be read as .npz"),
        ({"ids": IDS, "a": VECTORS.astype(str)}, "its vectors are of type <U32, but must be"),
        ({"ids": IDS, "a": VECTORS + 1j}, "its vectors are of type complex"),
        ({"ids": np.array(IDS, object), "a": VECTORS}, "Python objects.*could run any code"),
        ({"ids": IDS, "a": np.array([[1]] * 7, object)}, "Python objects.*could run any code"),
        ({"ids": IDS, "a": VECTORS, "num_segments": [1] * 8}, "add up to 8, but .* 7 rows"),
        ({"ids": IDS, "a": VECTORS, "num_segments": [1.0] * 7}, "must be whole numbers"),
        ({"ids": IDS, "a": VECTORS, "num_segments": [-1, 2, *[1] * 6]}, "none below 0"),
        ({"ids": IDS, "a": VECTORS, "num_segments": [4, 3]}, "has 7 ids for 2 tracks"),
        ({"ids": IDS, "a": SEGMENTS, "num_segments": [1] * 7}, r"\[R, D\] with num_segments"),
        ({"ids": ["x", "y"], "a": VECTORS[:2]}, "has none of the ids .* first is 'x', .*'track"),
    ],
)
def test_what_an_npz_file_lacks_is_said_in_a_sentence(tmp_path, arrays, what):
    np.savez(tmp_path / "clap.npz", **arrays)
    with pytest.raises(UserError, match=f"clap.npz.*{what}"):
        checked(tmp_path / "clap.npz")


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"ids": IDS, "a": VECTORS.tolist()}, "columns 'ids', 'a', .* must have 'id'"),
        ({"id": IDS, "a": VECTORS[:, 0]}, "of which 0 hold lists"),
        ({"id": IDS, "a": VECTORS.tolist(), "b": VECTORS.tolist()}, "of which 2 hold lists"),
        ({"id": IDS, "a": [[1.0]] * 6 + [[1.0, 2.0]]}, "have 1 and 2 numbers"),
        ({"id": IDS, "a": [[[1.0]]] * 6 + [[[1.0, 2.0]]]}, "have 1 and 2 numbers"),
        ({"id": IDS, "a": [[]] * 7}, "have no numbers"),
        ({"id": IDS, "a": [["x"]] * 7}, "must be numbers"),
        ({"id": [*IDS[:5], None, None], "a": VECTORS.tolist()}, "has the id '' twice"),
    ],
)
def test_what_a_parquet_file_lacks_is_said_in_a_sentence(tmp_path, columns, what):
    parquet.write_table(pa.table(columns), tmp_path / "clap.parquet")
    with pytest.raises(UserError, match=f"clap.parquet.*{what}"):
        checked(tmp_path / "clap.parquet")


def test_an_npy_file_needs_its_ids_beside_it(tmp_path):
    np.save(tmp_path / "clap.npy", VECTORS)
    with pytest.raises(UserError, match=r"clap\.npy needs .*clap\.ids\.txt beside it"):
        checked(tmp_path / "clap.npy")
    (tmp_path / "clap.ids.txt").write_bytes(b"\xff\n" * 7)
    with pytest.raises(UserError, match=r"clap\.ids\.txt beside it: .* UTF-8"):
        checked(tmp_path / "clap.npy")


@pytest.mark.parametrize("name", ["clap.csv", "clap", "", "absent.npz", "folder.npz"])
def test_a_name_that_is_no_file_of_vectors_is_refused(tmp_path, name):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match=r"\.npz, \.npy or \.parquet"):
        checked(tmp_path / name)


@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_damage_to_a_file_is_refused_in_a_sentence_or_does_no_harm(suffix, data):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"clap.{suffix}", IDS, SEGMENTS)
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del content[at:]
        path.write_bytes(content)
        try:
            found = embedding_file.load(path)
            [found.find(id_) for id_ in found.rows]
        except (UserError, embedding_file.VectorError) as error:
            refused = str(error)
        else:
            return
        assert str(path) in refused


@settings(deadline=None, max_examples=60)
@given(
    array=arrays_of.arrays(
        st.sampled_from(["f2", "f4", "f8", "i1", "i8", "u8", "?", "U2", "c8"]),
        arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    ids=st.lists(st.text(max_size=3), max_size=4),
)
def test_any_array_is_read_as_it_is_or_refused_in_a_sentence(array, ids):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clap.npz"
        np.savez(path, ids=np.array(ids, str), vectors=array)
        stripped = [str(id_).strip() for id_ in np.array(ids, str)]
        usable = (
            array.dtype.kind in "fiu"
            and array.ndim in (2, 3)
            and array.size
            and len(set(stripped)) == len(ids) == len(array)
        )
        if not usable:
            with pytest.raises(UserError, match=re.escape(str(path))):
                embedding_file.load(path)
            return
        found = embedding_file.load(path)
        for id_, values in zip(stripped, array, strict=True):
            with np.errstate(over="ignore"):
                expected = values.astype(np.float32)
            if np.isfinite(expected).all():
                assert found.find(id_).tolist() == expected.tolist()
            else:
                with pytest.raises(embedding_file.VectorError, match="not all finite"):
                    found.find(id_)
