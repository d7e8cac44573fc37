import errno
import os
import platform
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from tests.conftest import as_tfds_reads, write_collection
from vae_jax import manifest
from vae_jax.config import get_config
from vae_jax.errors import UserError
from vae_jax.features import audio, extract, extractors, origins, pool, shards
from vae_jax.features.errors import MachineError
from vae_jax.records import layout, reader
from vae_jax.storage import files


def feature(**changes):
    config = get_config().feature
    config.update(sample_rate=8000, duration=1.0, n_mels=32, n_fft=512, hop_length=256)
    config.update(shard_size=4, num_workers=1, n_mfcc=8)
    config.update(changes)
    return config.to_dict()


def run(metadata: Path, directory: Path, **changes):
    return extract.extract(manifest.read(metadata), feature(**changes), directory)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.name.startswith("tracks-")
    }


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """A collection and its records, made once."""
    folder = tmp_path_factory.mktemp("extracted")
    metadata = write_collection(folder / "music", 14)
    run(metadata, folder / "records")
    return folder


@pytest.fixture
def collection(extracted, tmp_path):
    """Return the manifest of a private copy of the collection."""
    shutil.copytree(extracted / "music", tmp_path / "music")
    return tmp_path / "music" / "metadata.csv"


@pytest.fixture
def directory(extracted, tmp_path):
    """Return a private copy of the collection's records, as up to date as the original."""
    shutil.copytree(extracted / "records", tmp_path / "records")
    return tmp_path / "records"


def test_records_hold_every_track_in_manifest_order(collection, directory):
    stored = reader.Records(directory)
    assert stored.ids.tolist() == [f"track-{i}" for i in range(14)]
    example = as_tfds_reads(directory)[5]
    assert sorted(example) == ["duration", "features", "id"]  # no labels: they never train
    assert (example["id"], example["duration"]) == (b"track-5", 1)
    features = stored.load(range(14))["features"]
    assert features.shape == (14, 16)
    statistics = stored.statistics["features"]
    np.testing.assert_allclose(statistics.mean, features.astype(float).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std, features.astype(float).std(axis=0), rtol=1e-6)


def test_tfds_reads_the_metadata(collection, directory):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    assert builder.info.splits["train"].num_examples == 14
    assert builder.info.splits["train"].shard_lengths == [4, 4, 4, 2]
    names = [Path(path).name for path in builder.info.splits["train"].filepaths]
    assert names == sorted(contents(directory))


def test_a_second_extraction_redoes_nothing(collection, directory):
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert run(collection, directory) == (False, [])
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_appended_rows_redo_only_the_last_shard(collection, directory):
    before = {path.name: path.stat().st_mtime_ns for path in directory.glob("tracks-*")}
    with open(collection, "a") as file:
        file.writelines(f"new-{i},audio/{i}.wav,\n" for i in range(4))
    run(collection, directory)
    after = {path.name: path.stat().st_mtime_ns for path in directory.glob("tracks-*")}
    assert sorted(name for name in before if after[name] == before[name]) == sorted(before)[:3]
    assert len(after) == 5
    assert len(reader.Records(directory)) == 18


def test_removed_rows_leave_no_shards_behind(collection, directory):
    lines = collection.read_text().splitlines(keepends=True)
    collection.write_text("".join(lines[:4]))
    run(collection, directory)
    assert len(contents(directory)) == 1
    assert len(reader.Records(directory)) == 3


def decoded(monkeypatch, collection, directory):
    """Extract in this process; return the changed flag and the tracks that were decoded."""
    seen, extract_one = [], extractors.AudioExtractor.__call__

    def note(self, track):
        seen.append(track.id)
        return extract_one(self, track)

    monkeypatch.setattr(extractors.AudioExtractor, "__call__", note)
    monkeypatch.setattr(pool, "run", lambda jobs, *rest: [shards.write_shard(job) for job in jobs])
    changed, _ = run(collection, directory)
    return changed, seen


def edit(collection, change):
    """Rewrite the manifest's rows below its header."""
    header, *rows = collection.read_text().splitlines()
    collection.write_text("\n".join([header, *change(rows)]) + "\n")


NO_CHANGE_OF_SOUND = {
    "label edited": lambda rows: [row.replace("chord", "noise") for row in rows],
    "lyrics edited": lambda rows: [f"{row},la la {i}" for i, row in enumerate(rows)],
    "rows reordered": lambda rows: rows[::-1],
    "a row removed": lambda rows: rows[:5] + rows[6:],
    "a row added": lambda rows: [rows[0], "new,audio/3.wav,", *rows[1:]],
}


@pytest.mark.parametrize("what", NO_CHANGE_OF_SOUND)
def test_no_track_is_decoded_again_for_a_change_of_rows(collection, directory, monkeypatch, what):
    before = reader.Records(directory)
    known = dict(zip(before.ids.tolist(), before.load(range(14))["features"], strict=True))
    if what == "lyrics edited":
        header, *rows = collection.read_text().splitlines()
        collection.write_text("\n".join([f"{header},lyrics", *rows]) + "\n")
    edit(collection, NO_CHANGE_OF_SOUND[what])
    changed, seen = decoded(monkeypatch, collection, directory)
    assert changed == (what not in ("label edited", "lyrics edited"))
    assert seen == (["new"] if what == "a row added" else [])
    after = reader.Records(directory)
    assert sorted(after.ids) == sorted(manifest.read(collection).ids)
    loaded = after.load(range(len(after)))["features"]
    for id_, features in zip(after.ids.tolist(), loaded, strict=True):
        np.testing.assert_array_equal(features, known.get(id_, known["track-3"]))
    is_same_set = what in ("label edited", "lyrics edited", "rows reordered")
    assert (after.content == before.content) == is_same_set
    assert not (directory / ".previous").exists()


def test_a_shard_in_which_every_track_failed_has_no_known_records(
    collection, directory, monkeypatch
):
    for i in range(5):
        (collection.parent / "audio" / f"{i}.wav").unlink()
    assert len(run(collection, directory)[1]) == 5
    edit(collection, lambda rows: ["new,audio/5.wav,", *rows])
    changed, seen = decoded(monkeypatch, collection, directory)
    assert (changed, seen) == (True, ["new", *(f"track-{i}" for i in range(5))])


def test_files_that_were_only_touched_are_told_by_their_checksums(
    collection, directory, monkeypatch
):
    before = contents(directory), reader.Records(directory).content
    for path in (collection.parent / "audio").iterdir():
        os.utime(path, (1e9, 1e9))
    assert decoded(monkeypatch, collection, directory) == (False, [])
    assert (contents(directory), reader.Records(directory).content) == before
    monkeypatch.setattr(origins, "checksum", lambda track: pytest.fail("their times were noted"))
    assert run(collection, directory) == (False, [])


def test_a_manifest_that_was_copied_takes_the_records_beside_its_own(
    collection, directory, tmp_path, monkeypatch
):
    shutil.copytree(collection.parent, tmp_path / "copy", copy_function=shutil.copy)
    changed, seen = decoded(monkeypatch, tmp_path / "copy" / "metadata.csv", tmp_path / "other")
    assert (changed, seen) == (True, [])
    assert contents(tmp_path / "other") == contents(directory)


def test_a_file_that_changes_while_it_is_read_fails_and_is_read_again_later(
    collection, directory, monkeypatch
):
    sound, rate = soundfile.read(collection.parent / "audio" / "0.wav")
    path, extract_one = collection.parent / "audio" / "5.wav", extractors.AudioExtractor.__call__
    soundfile.write(path, sound * 0.3, rate)

    def slow(self, track):
        result = extract_one(self, track)
        if track.id == "track-5":
            soundfile.write(path, np.append(sound, sound) * 0.5, rate)
        return result

    monkeypatch.setattr(extractors.AudioExtractor, "__call__", slow)
    monkeypatch.setattr(pool, "run", lambda jobs, *rest: [shards.write_shard(job) for job in jobs])
    _, [failure] = run(collection, directory)
    assert (failure.id, "changed while it was read" in failure.reason) == ("track-5", True)
    monkeypatch.setattr(extractors.AudioExtractor, "__call__", extract_one)
    changed, failures = run(collection, directory)
    assert (changed, failures) == (True, [])


def test_a_damaged_record_that_was_known_is_extracted_again(collection, directory, monkeypatch):
    expected = reader.Records(directory).load(range(14))["features"]
    shard = layout.shard_path(directory, 1)
    data, times = bytearray(shard.read_bytes()), shard.stat()
    data[100] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a disk's own fault
    edit(collection, lambda rows: rows[1:])
    _, seen = decoded(monkeypatch, collection, directory)
    assert seen == ["track-4"]
    np.testing.assert_array_equal(
        reader.Records(directory).load(range(13))["features"], expected[1:]
    )


def test_a_changed_audio_file_redoes_its_shard(collection, directory):
    before = reader.Records(directory).load(range(14))["features"]
    sound, rate = soundfile.read(collection.parent / "audio" / "0.wav")
    soundfile.write(collection.parent / "audio" / "5.wav", sound * 0.5, rate)
    changed, _ = run(collection, directory)
    after = reader.Records(directory).load(range(14))["features"]
    assert changed
    assert (before != after).any(axis=1).nonzero()[0].tolist() == [5]


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "marker", "delete marker"])
def test_damaged_shards_are_redone_and_equal_the_undamaged_ones(collection, directory, damage):
    before = contents(directory)
    shard, marker = layout.shard_path(directory, 1), layout.marker_path(directory, 1)
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    {
        "flip": lambda: shard.write_bytes(data),
        "truncate": lambda: shard.write_bytes(data[:-7]),
        "delete": shard.unlink,
        "marker": lambda: marker.write_text("{"),
        "delete marker": marker.unlink,
    }[damage]()
    changed, _ = run(collection, directory)
    assert changed
    assert contents(directory) == before


def test_a_flipped_bit_that_leaves_the_time_unchanged_is_found_on_reading(collection, directory):
    shard = layout.shard_path(directory, 1)
    state, data = shard.stat(), bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert run(collection, directory) == (False, [])
    with pytest.raises(layout.DamagedRecord, match="00001") as error:
        reader.Records(directory).load(range(14))["features"]
    layout.invalidate(error.value)
    run(collection, directory)
    assert len(reader.Records(directory).load(range(14))["features"]) == 14


def test_a_copy_with_new_times_is_trusted_for_its_hash(collection, directory, tmp_path):
    shutil.copytree(directory, tmp_path / "copy", copy_function=shutil.copyfile)
    assert run(collection, tmp_path / "copy") == (False, [])


@pytest.mark.slow
def test_the_numbers_of_workers_and_shards_change_no_feature(collection, directory, tmp_path):
    run(collection, tmp_path / "three", num_workers=3)
    assert contents(tmp_path / "three") == contents(directory)
    run(collection, tmp_path / "one", shard_size=100)
    one, many = reader.Records(tmp_path / "one"), reader.Records(directory)
    assert (one.load(range(14))["features"] == many.load(range(14))["features"]).all()


def test_bad_tracks_are_listed_with_their_reasons_and_the_rest_is_kept(collection, directory):
    audio = collection.parent / "audio"
    (audio / "0.wav").write_text("this is no audio")
    (audio / "1.wav").write_bytes(b"")
    soundfile.write(audio / "2.wav", np.ones(400), 8000)
    soundfile.write(audio / "3.wav", np.zeros(8000), 8000)
    (audio / "4.wav").unlink()
    _, failures = run(collection, directory)
    reasons = {failure.id: failure.reason for failure in failures}
    for id_, part in {
        "track-0": "not audio",
        "track-1": "empty",
        "track-2": "0.05 s is shorter",
        "track-3": "silent",
        "track-4": "No such file",
    }.items():
        assert part in reasons[id_]
    assert reader.Records(directory).ids.tolist() == [f"track-{i}" for i in range(5, 14)]
    extract.write_failures(directory / "failed.csv", failures)
    assert len(files.read_csv(directory / "failed.csv")) == 5


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_audio_that_has_no_end_is_not_read_for_its_checksum(tmp_path, kind):
    path = Path("/dev/zero")
    if kind == "fifo":
        path = tmp_path / "endless.wav"
        os.mkfifo(path)
    track = manifest.Track(id="endless", audio_path=path)
    with get_context("spawn").Pool(1) as processes:  # which can be ended
        assert processes.apply_async(origins.checksum, (track,)).get(timeout=60) is None


def test_a_run_whose_tracks_all_fail_says_why(collection, directory):
    shutil.rmtree(collection.parent / "audio")
    with pytest.raises(UserError, match="none of the 14 tracks"):
        run(collection, directory)


def test_the_environment_of_the_workers_is_not_left_behind():
    before = dict(os.environ)
    with pool.worker_environment():
        assert {**os.environ} == before | pool.WORKER_ENVIRONMENT
    assert dict(os.environ) == before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc's malloc")
@pytest.mark.parametrize(
    ("codes", "end"),
    [([-9, -15], "SIGKILL"), ([0, 1, -15, None], "status 1"), ([-6, 3], "SIGABRT, status 3")],
)
def test_workers_that_died_are_told_from_those_that_the_pool_has_ended(codes, end):
    assert pool._end([SimpleNamespace(exitcode=code) for code in codes]) == end


def test_where_processes_share_memory_is_named():
    said = r"\(No space left on device\): make room in /dev/shm"
    with pytest.raises(UserError, match=said), pool._sharing():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_workers_do_not_ask_the_kernel_for_the_memory_of_every_track_anew():
    with pool.worker_environment(), ProcessPoolExecutor(1, get_context("spawn")) as workers:
        assert workers.submit(_page_faults, 16).result() < 100  # 450 otherwise


def _page_faults(mebibytes):
    """Return the new pages of ten arrays, one after another, but for the first."""
    import resource

    for i in range(11):
        if i == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(mebibytes * 2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


@needs_ffmpeg
def test_what_failed_for_want_of_ffmpeg_is_tried_again_with_it(collection, directory, monkeypatch):
    wav, m4a = (collection.parent / "audio" / f"5.{suffix}" for suffix in ("wav", "m4a"))
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-i", wav, m4a], check=True)
    m4a.replace(wav)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", "")
    changed, (failure,) = run(collection, directory)
    assert changed
    assert "install ffmpeg" in failure.reason
    assert failure.retry == "with ffmpeg"
    without = reader.Records(directory).fingerprint
    assert run(collection, directory) == (False, [failure])
    monkeypatch.setenv("PATH", path)
    assert run(collection, directory) == (True, [])
    assert len(reader.Records(directory)) == 14
    assert reader.Records(directory).fingerprint != without
    assert run(collection, directory) == (False, [])


@pytest.fixture
def in_process(monkeypatch):
    """Write the shards in this process."""
    monkeypatch.setattr(pool, "run", lambda jobs, *_: [shards.write_shard(job) for job in jobs])


@pytest.mark.usefixtures("in_process")
def test_what_the_machine_could_not_do_is_tried_again_and_what_is_no_audio_is_not(
    collection, directory, monkeypatch
):
    (collection.parent / "audio" / "1.wav").write_text("this is no audio")
    real, attempts = audio.load, []

    def load(path, **settings):
        attempts.append(path.name)
        if path.name == "6.wav" and attempts.count("6.wav") == 1:
            raise MachineError("no memory")
        return real(path, **settings)

    monkeypatch.setattr(audio, "load", load)
    sound, rate = soundfile.read(collection.parent / "audio" / "6.wav")
    soundfile.write(collection.parent / "audio" / "6.wav", 0.5 * sound, rate)
    _, failures = run(collection, directory)
    assert {failure.id: failure.retry for failure in failures} == {
        "track-1": "",
        "track-6": "at the next run",
    }
    attempts.clear()
    attempts.append("6.wav")
    changed, failures = run(collection, directory)
    assert changed
    assert [failure.id for failure in failures] == ["track-1"]
    assert "1.wav" not in attempts
    assert run(collection, directory) == (False, failures)


def test_what_is_odd_is_listed_and_what_read_each_track_is_recorded(collection, directory):
    path = collection.parent / "audio" / "3.wav"
    os.truncate(path, path.stat().st_size * 3 // 4)
    assert run(collection, directory) == (True, [])
    kinds = extract.write_warnings(directory / "warnings.csv", directory)
    assert kinds == {"shorter than its header": 1}
    assert files.read_csv(directory / "warnings.csv") == [
        {
            "id": "track-3",
            "audio_path": str(path),
            "warning": "shorter than its header: 0.7 of 1.0 s",
            "remedy": "copy or fetch the file again",
        }
    ]
    marker = files.read_sealed_json(layout.marker_path(directory, 0))
    assert marker["decoders"] == ["libsndfile"] * 4
    _, (failure,) = run(collection, directory, refuse_truncated=True)
    assert failure.reason == "shorter than its header: 0.7 of 1.0 s"
