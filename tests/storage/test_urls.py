from pathlib import Path

import fsspec
import pytest

from tests.conftest import write_collection
from vae_jax import manifest
from vae_jax.config import get_config
from vae_jax.errors import UserError
from vae_jax.features import extract, pool, shards
from vae_jax.storage import urls


@pytest.fixture
def bucket():
    """Return the URL of an empty bucket in this process's memory."""
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket"


@pytest.mark.parametrize(
    ("folder", "name", "joined"),
    [
        ("gs://b/music", "audio/1.mp3", "gs://b/music/audio/1.mp3"),
        ("gs://b/music", "s3://c/1.mp3", "s3://c/1.mp3"),
        ("gs://b/music", "/data/1.mp3", Path("/data/1.mp3")),
        (Path("music"), "audio/1.mp3", Path("music/audio/1.mp3")),
        (Path("music"), "s3://c/1.mp3", "s3://c/1.mp3"),
        (Path("music"), "http://host/1.mp3", Path("music/http:/host/1.mp3")),
        (Path("music"), "s3://c/1.zip::file:///1", Path("music/s3:/c/1.zip::file:/1")),
        (Path("music"), "s3://c\n::file:///1", Path("music/s3:/c\n::file:/1")),
        (Path("music"), "s3://c/1\n", Path("music/s3:/c/1\n")),
    ],
)
def test_names_are_urls_of_object_stores_or_relative_to_the_folder(folder, name, joined):
    assert urls.join(folder, name) == joined


def test_a_url_is_seen_relative_to_its_folder_and_whole_from_elsewhere(tmp_path):
    assert urls.relative("gs://b/music/audio/1.mp3", "gs://b/music") == "audio/1.mp3"
    assert urls.relative("s3://c/1.mp3", "gs://b/music") == "s3://c/1.mp3"
    assert urls.relative("s3://c/1.mp3", tmp_path) == "s3://c/1.mp3"
    assert urls.relative(tmp_path / "a" / "1.mp3", tmp_path) == "a/1.mp3"


def test_what_is_written_to_a_url_is_listed_read_and_removed(bucket):
    assert urls.names(f"{bucket}/a") == set()
    urls.write(f"{bucket}/a/one.bin", b"\0one")
    assert urls.names(f"{bucket}/a") == {"one.bin"}
    with urls.local(f"{bucket}/a/one.bin") as path:
        assert path.suffix == ".bin"
        assert path.read_bytes() == b"\0one"
    assert not path.exists()
    urls.remove(f"{bucket}/a")
    assert urls.names(f"{bucket}/a") == set()


def test_the_state_of_a_file_changes_with_it_and_is_none_without_it(bucket, tmp_path):
    for folder in (bucket, f"file://{tmp_path}/url", tmp_path / "path"):
        item = urls.join(folder, "x")
        assert urls.states([item, None]) == [None, None]
        seen = []
        for content in (b"one", b"four"):
            urls.write(item, content)
            seen += [urls.states([item])[0]] * 2
        assert [state[0] for state in seen] == [3, 3, 4, 4]
        assert seen[0] == seen[1] != seen[2]


def test_a_store_whose_package_is_missing_names_it():
    try:
        fsspec.get_filesystem_class("az")
    except ImportError:
        with pytest.raises(UserError, match="pip install adlfs"):
            manifest.read("az://bucket/metadata.csv")
    else:
        pytest.skip("adlfs is installed")


def test_a_manifest_that_is_not_at_the_url_is_named(bucket):
    with pytest.raises(UserError, match=r"memory://bucket/metadata\.csv \(No such file"):
        manifest.read(f"{bucket}/metadata.csv")


def feature():
    config = get_config().feature
    config.update(sample_rate=8000, duration=1.0, n_mels=32, n_fft=512, hop_length=256, n_mfcc=8)
    config.update(shard_size=4, num_workers=1)
    return config.to_dict()


def run(metadata, directory: Path):
    return extract.extract(manifest.read(metadata), feature(), directory)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("tracks-*")}


@pytest.fixture
def in_process(monkeypatch):
    """Write the shards here: memory:// is nobody else's, and a pool takes its time to start."""

    def write(jobs, processes, num_tracks):
        for job in jobs:
            shards.write_shard(shards.ShardJob.from_json(job.to_json()))

    with monkeypatch.context() as patch:
        patch.setattr(pool, "run", write)
        yield patch


def test_a_collection_in_a_bucket_gives_the_records_of_the_same_files(bucket, tmp_path, in_process):
    metadata = write_collection(tmp_path / "music", 6)
    (metadata.parent / "audio" / "4.wav").unlink()
    fsspec.filesystem("memory").put(str(tmp_path / "music"), "/bucket/", recursive=True)
    run(metadata, tmp_path / "local")
    changed, failures = run(f"{bucket}/music/metadata.csv", tmp_path / "url")
    assert changed
    assert contents(tmp_path / "url") == contents(tmp_path / "local")
    (failure,) = failures
    assert failure.audio_path == "memory://bucket/music/audio/4.wav"
    assert (
        failure.reason == "cannot read memory://bucket/music/audio/4.wav: No such file or directory"
    )
    assert run(f"{bucket}/music/metadata.csv", tmp_path / "url")[0] is False
    urls.write(f"{bucket}/music/audio/4.wav", (metadata.parent / "audio" / "1.wav").read_bytes())
    assert run(f"{bucket}/music/metadata.csv", tmp_path / "url") == (True, [])


def test_worker_processes_read_urls(tmp_path, in_process):
    metadata = write_collection(tmp_path / "music", 6)
    run(metadata, tmp_path / "local")
    in_process.undo()
    run(f"file://{metadata}", tmp_path / "url")
    assert contents(tmp_path / "url") == contents(tmp_path / "local")
