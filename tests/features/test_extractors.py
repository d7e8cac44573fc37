import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import as_tfds_reads, write_collection
from vae_jax import manifest
from vae_jax.config import get_config
from vae_jax.errors import UserError
from vae_jax.features import extract, extractors, lyrics
from vae_jax.records import reader
from vae_jax.records.statistics import Statistics
from vae_jax.storage import files

SONGS = (
    "hold me in the night\nthe fire burns",
    "[Chorus]\nwe dance in the rain tonight",
    "summer rain on the river\nhold me",
    "my heart is a river\nin the rain",
    "la nuit je danse sous la pluie",
    "mon cœur est une rivière\nla nuit",
    "夏の夜に花火が上がる",
    "雨の夜に君を待つ",
)
NUM_TRACKS = len(SONGS)


def feature(name, **changes):
    config = get_config().feature
    config.update(sample_rate=8000, duration=1.0, n_mels=32, n_fft=512, hop_length=256)
    config.update(name=name, shard_size=3, num_workers=1, n_mfcc=8, lyrics_embed_dim=4)
    config.update(changes)
    return config.to_dict()


def run(metadata, directory, name, lyrics=None, **changes):
    tracks = manifest.read(metadata)
    return extract.extract(tracks, feature(name, **changes), directory, lyrics=lyrics)


def edit(metadata, *rows, drop=(), **cells):
    """Set cells, `column={row number: value}`; drop rows by number; append rows."""
    table = files.read_csv(metadata)
    for column, values in cells.items():
        for row, value in values.items():
            table[row][column] = value
    table = [row for number, row in enumerate(table) if number not in drop]
    files.write_csv(metadata, ("id", "audio_path", "label", "lyrics"), [*table, *rows])


def times(directory, pattern="*"):
    return {path.name: path.stat().st_mtime_ns for path in directory.glob(pattern)}


@pytest.fixture
def collection(tmp_path):
    """Return the manifest of eight tracks with audio and lyrics in three languages."""
    metadata = write_collection(tmp_path / "music", NUM_TRACKS)
    edit(metadata, lyrics=dict(enumerate(SONGS)))
    return metadata


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "records"


def track(stored, position):
    """Return one track's arrays by name."""
    return {name: values[0] for name, values in stored.load([position]).items()}


@pytest.mark.parametrize("embed_dim", [0, 4])
@pytest.mark.usefixtures("in_process")
def test_lyrics_are_embedded_as_if_all_at_once(collection, directory, embed_dim):
    run(collection, directory, "lyrics_tfidf", lyrics_embed_dim=embed_dim)
    embedding = lyrics.fit(SONGS, embed_dim=embed_dim)
    stored = reader.Records(directory)
    assert (stored.load(range(NUM_TRACKS))["features"] == embedding.transform(SONGS)).all()
    assert stored.arrays["features"].shape == (embedding.dim,)
    assert as_tfds_reads(directory)[0]["duration"] == 0
    assert stored.lyrics == embedding.to_dict()


@pytest.mark.usefixtures("in_process")
def test_a_track_without_lyrics_fails_and_says_why(collection, directory):
    edit(collection, lyrics={1: " \n", 4: "[Instrumental]"})
    _, failures = run(collection, directory, "lyrics_tfidf")
    assert {failure.id: failure.reason for failure in failures} == {
        "track-1": "it has no lyrics",
        "track-4": "its lyrics hold no words, only headers or punctuation",
    }
    assert len(reader.Records(directory)) == NUM_TRACKS - 2


HANGING = """
import sys, time
from vae_jax import manifest
from vae_jax.features import audio, extractors
load, extractors.TIME_LIMIT = audio.load, float(sys.argv[2])
audio.load = lambda path, **w: time.sleep(999) if path.stem == "1" else load(path, **w)
from tests.features.test_extractors import feature
extract = extractors.build(feature("hybrid"), manifest.Path(sys.argv[3]), sys.argv[4])
tracks = manifest.read(sys.argv[1])
hung, sound = map(extract, (tracks[1], tracks[0]))
print(hung.faults, *hung.arrays, sound.faults)
"""


@pytest.mark.slow
def test_a_file_that_hangs_fails_alone_and_the_process_can_end(collection, directory):
    found = extractors.prepare(manifest.read(collection), feature("hybrid"), directory)
    command = [sys.executable, "-c", HANGING, collection, "2", directory, found]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    path = collection.parent / "audio" / "1.wav"
    reason = f"no audio: cannot read {path}: it took longer than 3 s"
    assert done.stdout == f"('{reason}',) lyrics has_audio has_lyrics ()\n", done.stderr


@pytest.mark.parametrize("audio_feature", ["mfcc", "logmelspec"])
@pytest.mark.usefixtures("in_process")
def test_a_hybrid_holds_what_each_feature_alone_does(collection, tmp_path, audio_feature):
    run(collection, tmp_path / "hybrid", "hybrid", audio_feature=audio_feature)
    run(collection, tmp_path / "audio", audio_feature)
    run(collection, tmp_path / "lyrics", "lyrics_tfidf")
    hybrid = reader.Records(tmp_path / "hybrid")
    for name in ("audio", "lyrics"):
        alone = reader.Records(tmp_path / name)
        assert hybrid.arrays[name] == alone.arrays["features"]
        for position in range(NUM_TRACKS):
            record, expected = track(hybrid, position), track(alone, position)["features"]
            assert record[name].dtype == expected.dtype
            assert np.array_equal(record[name], expected)
            assert record[f"has_{name}"] == 1
        found, expected = hybrid.statistics[name], alone.statistics["features"]
        assert (found.mean == expected.mean).all()
        assert (found.std == expected.std).all()
    assert hybrid.num_frames.tolist() == reader.Records(tmp_path / "audio").num_frames.tolist()


@pytest.mark.parametrize("audio_feature", ["mfcc", "logmelspec"])
@pytest.mark.usefixtures("in_process")
def test_a_missing_modality_is_zeros_a_flag_and_no_part_of_the_statistics(
    collection, directory, audio_feature
):
    edit(collection, audio_path={0: "", 1: "", 2: "", 5: ""}, lyrics={3: "", 6: ""})
    _, failures = run(collection, directory, "hybrid", audio_feature=audio_feature)
    assert failures == []
    stored = reader.Records(directory)
    tracks = [track(stored, position) for position in range(NUM_TRACKS)]
    assert [int(track["has_audio"]) for track in tracks] == [0, 0, 0, 1, 1, 0, 1, 1]
    assert [int(track["has_lyrics"]) for track in tracks] == [1, 1, 1, 0, 1, 1, 0, 1]
    missing = np.zeros((0, 32), np.float16) if audio_feature == "logmelspec" else np.zeros(16)
    assert np.array_equal(tracks[0]["audio"], missing)
    assert np.array_equal(tracks[3]["lyrics"], np.zeros(4))
    assert (
        stored.num_frames == [len(t["audio"]) if missing.ndim == 2 else 0 for t in tracks]
    ).all()
    assert [as_tfds_reads(directory)[i]["duration"] for i in (0, 3)] == [0, 1]
    for name in ("audio", "lyrics"):
        present = np.vstack([t[name] for t in tracks if t[f"has_{name}"]]).astype(np.float64)
        assert stored.statistics[name].count == len(present)
        np.testing.assert_allclose(stored.statistics[name].mean, present.mean(axis=0), rtol=1e-9)


@pytest.mark.usefixtures("in_process")
def test_a_hybrid_track_fails_only_without_both_and_a_loss_is_told(collection, directory):
    edit(collection, audio_path={0: "", 1: "nowhere.wav", 2: "gone.wav"}, lyrics={0: "", 2: "!"})
    _, failures = run(collection, directory, "hybrid")
    failed = {failure.id: failure for failure in failures}
    assert "neither audio (its audio_path is empty) nor lyrics (it has" in failed["track-0"].reason
    assert "No such file" in failed["track-2"].reason
    assert "no words" in failed["track-2"].reason
    assert failed["track-1"].kept
    assert failed["track-1"].reason.startswith("no audio: cannot read")
    assert reader.Records(directory).ids.tolist() == [
        "track-1",
        *(f"track-{i}" for i in range(3, 8)),
    ]
    extract.write_failures(directory / "failed.csv", failures)
    rows = files.read_csv(directory / "failed.csv")
    assert [(row["id"], row["kept"]) for row in rows] == [
        ("track-0", "False"),
        ("track-1", "True"),
        ("track-2", "False"),
    ]


@pytest.mark.usefixtures("in_process")
def test_words_that_stand_for_no_lyrics_are_missing_and_told(collection, directory):
    edit(collection, lyrics={1: "nan", 4: "N/A", 6: "Lyrics not available"})
    _, failures = run(collection, directory, "hybrid")
    assert [(failure.id, failure.kind, failure.kept) for failure in failures] == [
        (f"track-{i}", "no lyrics", True) for i in (1, 4, 6)
    ]
    stored = reader.Records(directory)
    flags = [int(track(stored, position)["has_lyrics"]) for position in range(NUM_TRACKS)]
    assert flags == [1, 0, 1, 1, 0, 1, 0, 1]
    edit(collection, lyrics={1: "", 4: "", 6: ""})
    run(collection, directory.with_name("empty"), "hybrid")
    empty = reader.Records(directory.with_name("empty"))
    for position in range(NUM_TRACKS):
        found, expected = track(stored, position)["lyrics"], track(empty, position)["lyrics"]
        assert np.array_equal(found, expected)


@pytest.mark.usefixtures("in_process")
def test_lyrics_that_are_cleaned_otherwise_are_extracted_again(collection, directory, monkeypatch):
    fitted = lyrics.fit(SONGS, embed_dim=4).to_dict()
    run(collection, directory, "lyrics_tfidf", lyrics=fitted)
    assert not run(collection, directory, "lyrics_tfidf", lyrics=fitted)[0]
    monkeypatch.setattr(extractors, "LYRICS_VERSION", extractors.LYRICS_VERSION + 1)
    assert run(collection, directory, "lyrics_tfidf", lyrics=fitted)[0]


@pytest.mark.usefixtures("in_process")
def test_lyrics_are_scaled_by_one_number_which_keeps_their_proportions(collection, directory):
    run(collection, directory, "lyrics_tfidf")
    stored = reader.Records(directory)
    features = stored.load(range(NUM_TRACKS))["features"].astype(np.float64)
    statistics = stored.statistics["features"]
    np.testing.assert_allclose(statistics.mean, features.mean(axis=0), atol=1e-9)
    expected = np.full(4, np.sqrt(features.var(axis=0).mean()))
    np.testing.assert_allclose(statistics.std, expected, rtol=1e-9)
    again = Statistics.from_dict(statistics.to_dict())
    assert (again.std == statistics.std).all()


@pytest.mark.usefixtures("in_process")
def test_new_lyrics_are_learned_and_redo_all_shards(collection, directory, tmp_path):
    run(collection, directory, "lyrics_tfidf")
    before = times(directory, "tracks-*")
    edit(collection, {"id": "new", "lyrics": "tonight the moon is on fire"})
    assert run(collection, directory, "lyrics_tfidf")[0]
    after = times(directory, "tracks-*")
    assert all(after[name] > before[name] for name in before)
    run(collection, tmp_path / "fresh", "lyrics_tfidf")
    fresh, updated = reader.Records(tmp_path / "fresh"), reader.Records(directory)
    assert fresh.fingerprint == updated.fingerprint
    assert fresh.lyrics == updated.lyrics


@pytest.mark.usefixtures("in_process")
def test_a_changed_label_redoes_nothing(collection, directory):
    run(collection, directory, "hybrid")
    before = times(directory)
    edit(collection, label={4: "renamed"})
    assert run(collection, directory, "hybrid")[0] is False
    assert times(directory) == before


@pytest.mark.parametrize("name", ["lyrics_tfidf", "hybrid"])
@pytest.mark.usefixtures("in_process")
def test_a_second_extraction_redoes_nothing_whatever_the_lyrics_weigh(collection, directory, name):
    run(collection, directory, name)
    before = times(directory)
    assert run(collection, directory, name, lyrics_weight=3.0) == (False, [])
    assert times(directory) == before


@pytest.mark.parametrize("change", [{"lyrics_embed_dim": 3}, {"lyrics_max_features": 20}])
@pytest.mark.usefixtures("in_process")
def test_changed_settings_learn_another_embedding(collection, directory, change):
    run(collection, directory, "lyrics_tfidf")
    before = reader.Records(directory).lyrics
    assert run(collection, directory, "lyrics_tfidf", **change)[0]
    assert reader.Records(directory).lyrics != before


@pytest.mark.parametrize("name", ["lyrics.json", "lyrics-made-from.json"])
@pytest.mark.parametrize("damage", ["delete", "truncate"])
@pytest.mark.usefixtures("in_process")
def test_a_damaged_embedding_is_learned_again(collection, directory, name, damage):
    run(collection, directory, "lyrics_tfidf")
    shards, content = times(directory, "tracks-*"), (directory / name).read_bytes()
    if damage == "delete":
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content[:-9])
    run(collection, directory, "lyrics_tfidf")
    assert (directory / name).read_bytes() == content
    assert times(directory, "tracks-*") == shards
    assert len(reader.Records(directory)) == NUM_TRACKS


@pytest.mark.usefixtures("in_process")
def test_records_are_unfinished_as_soon_as_the_embedding_changes(collection, directory):
    run(collection, directory, "lyrics_tfidf")
    edit(collection, lyrics={0: "another song"})
    extractors.prepare(manifest.read(collection), feature("lyrics_tfidf"), directory)
    with pytest.raises(UserError, match="run --stage=features"):
        reader.Records(directory)


@pytest.mark.parametrize("name", ["lyrics_tfidf", "hybrid"])
@pytest.mark.usefixtures("in_process")
def test_an_embedding_that_is_passed_in_is_used_as_it_is(collection, directory, tmp_path, name):
    array = "lyrics" if name == "hybrid" else "features"
    run(collection, directory, name)
    trained = reader.Records(directory)
    edit(collection, drop=range(5), lyrics={5: "a song in words that nobody knows"})
    run(collection, tmp_path / "new", name, lyrics=trained.lyrics)
    new = reader.Records(tmp_path / "new")
    assert new.lyrics == trained.lyrics
    assert (track(new, 1)[array] == track(trained, 6)[array]).all()
    before = times(tmp_path / "new")
    assert run(collection, tmp_path / "new", name, lyrics=trained.lyrics) == (False, [])
    assert times(tmp_path / "new") == before
    assert run(collection, tmp_path / "new", name)[0]
    assert reader.Records(tmp_path / "new").lyrics != trained.lyrics


@pytest.mark.usefixtures("in_process")
def test_an_embedding_serves_tracks_without_any_lyrics(collection, directory, tmp_path):
    run(collection, directory, "hybrid")
    edit(collection, lyrics=dict.fromkeys(range(NUM_TRACKS), ""))
    run(collection, tmp_path / "new", "hybrid", lyrics=reader.Records(directory).lyrics)
    new = reader.Records(tmp_path / "new")
    assert not new.load(range(NUM_TRACKS))["has_lyrics"].any()
    assert new.statistics["lyrics"].std.tolist() == [1, 1, 1, 1]


@pytest.mark.usefixtures("in_process")
def test_a_hybrid_of_no_audio_at_all_is_told(collection, directory, caplog):
    edit(collection, audio_path=dict.fromkeys(range(NUM_TRACKS), ""))
    with caplog.at_level("WARNING"):
        run(collection, directory, "hybrid")
    assert "no track has audio" in caplog.text
    assert reader.Records(directory).statistics["audio"].std.tolist() == [1] * 16


@pytest.mark.parametrize("name", ["lyrics_tfidf", "hybrid"])
def test_a_collection_without_lyrics_is_one_clear_error(collection, directory, name):
    edit(collection, lyrics=dict.fromkeys(range(NUM_TRACKS), " "))
    with pytest.raises(UserError, match=r"no track in .*metadata\.csv has lyrics"):
        run(collection, directory, name)


@pytest.mark.slow
def test_the_numbers_of_workers_and_shards_change_no_feature(collection, tmp_path):
    edit(collection, audio_path={2: ""}, lyrics={4: ""})
    run(collection, tmp_path / "two", "hybrid", num_workers=2)
    run(collection, tmp_path / "one", "hybrid", shard_size=100)
    two, one = reader.Records(tmp_path / "two"), reader.Records(tmp_path / "one")
    for position in range(NUM_TRACKS):
        a, b = track(two, position), track(one, position)
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)
    for name in ("audio", "lyrics"):
        np.testing.assert_allclose(two.statistics[name].std, one.statistics[name].std, rtol=1e-12)
    assert (tmp_path / "two" / "lyrics.json").read_bytes() == (
        tmp_path / "one" / "lyrics.json"
    ).read_bytes()


@pytest.mark.parametrize("audio_feature", ["mfcc", "logmelspec"])
@pytest.mark.usefixtures("in_process")
def test_tfds_reads_the_metadata_of_a_hybrid(collection, directory, audio_feature):
    import tensorflow_datasets as tfds

    run(collection, directory, "hybrid", audio_feature=audio_feature)
    info = tfds.builder_from_directory(directory).info
    assert info.splits["train"].num_examples == NUM_TRACKS
    assert info.features["lyrics"].shape == (4,)
    assert info.features["audio"].shape == ((None, 32) if audio_feature == "logmelspec" else (16,))
    assert info.features["has_audio"].np_dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "unwanted"), [("lyrics_tfidf", "jax"), ("mfcc", "sklearn"), ("", "jax sklearn")]
)
@pytest.mark.usefixtures("in_process")
def test_a_feature_loads_only_the_libraries_that_it_needs(collection, directory, name, unwanted):
    script = "import sys; from vae_jax import manifest; from vae_jax.features import extractors\n"
    if name:
        run(collection, directory, "lyrics_tfidf")
        code = repr((feature(name), str(directory), str(collection)))
        script += (
            f"from pathlib import Path; feature, directory, metadata = {code}\n"
            "tracks = manifest.read(metadata)\n"
            "lyrics = extractors.prepare(tracks, feature, Path(directory))\n"
            "extractors.build(feature, Path(directory), lyrics)(tracks[0])\n"
        )
    script += f"sys.exit(' '.join(n for n in {unwanted.split()} if n in sys.modules))"
    environment = {**os.environ, "XLA_FLAGS": ""}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert result.stderr.strip() == ""
