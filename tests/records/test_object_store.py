"""Records kept at a URL: what is finished there is finished anywhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.conftest import write_collection
from vae_jax import manifest
from vae_jax.config import get_config
from vae_jax.errors import UserError
from vae_jax.features import extract, pool, shards
from vae_jax.records import layout, object_store, reader
from vae_jax.storage import files

CONFIG = Path(__file__).parents[2] / "configs" / "mlp.py"


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path) -> str:
    """Return the URL of an empty folder: of an object store, or of files."""
    fsspec.filesystem("memory").store.clear()
    return {"memory": "memory://bucket/records", "file": f"file://{tmp_path}/bucket"}[request.param]


@pytest.fixture
def written(monkeypatch) -> list[int]:
    """Write shards in this process, whose memory:// is nobody else's; return their numbers."""
    numbers = []

    def write(jobs, processes, num_tracks):
        for job in jobs:
            numbers.append(job.shard)
            shards.write_shard(shards.ShardJob.from_json(job.to_json()))

    monkeypatch.setattr(pool, "run", write)
    return numbers


def run(metadata: Path, directory: Path, store: str | None):
    config = get_config().feature
    config.update(sample_rate=8000, duration=1.0, n_mels=32, n_fft=512, hop_length=256, n_mfcc=8)
    config.update(shard_size=4, num_workers=1)
    return extract.extract(manifest.read(metadata), config.to_dict(), directory, store=store)


def there(store: str) -> dict[str, bytes]:
    filesystem, path = fsspec.core.url_to_fs(store)
    return {name.rsplit("/", 1)[1]: filesystem.cat_file(name) for name in filesystem.find(path)}


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files but markers, which hold the time of their shard's file, and the lock."""
    skipped = ("shard-", ".lock")
    paths = (path for path in folder.iterdir() if not path.name.startswith(skipped))
    return {path.name: path.read_bytes() for path in paths}


def test_the_store_holds_the_bytes_of_local_records(collection, tmp_path, store, written):
    run(collection, tmp_path / "local", None)
    run(collection, tmp_path / "copy", store)
    assert contents(tmp_path / "copy") == contents(tmp_path / "local")
    kept = {name: data for name, data in there(store).items() if not name.startswith("shard-")}
    assert kept == contents(tmp_path / "local")
    assert {f"shard-{k:05d}.json" for k in range(3)} == set(there(store)) - set(kept)


def test_another_machine_fetches_what_is_finished_and_writes_the_rest(
    collection, tmp_path, store, written
):
    run(collection, tmp_path / "one", store)
    reference = contents(tmp_path / "one")
    object_store.reopen(store)
    filesystem, path = fsspec.core.url_to_fs(store)
    filesystem.rm(f"{path}/shard-00001.json")  # as if killed between a shard and its marker
    written.clear()
    changed, _ = run(collection, tmp_path / "two", store)
    assert changed
    assert written == [1]
    assert contents(tmp_path / "two") == reference
    written.clear()
    assert run(collection, tmp_path / "three", store)[0] is False
    assert run(collection, tmp_path / "two", store)[0] is False
    assert written == []


def test_readers_fetch_only_what_differs(collection, tmp_path, store, written):
    run(collection, tmp_path / "one", store)
    copy = tmp_path / "copy"
    copy.mkdir()
    object_store.fetch(store, copy)
    one, two = reader.Records(tmp_path / "one"), reader.Records(copy)
    np.testing.assert_array_equal(two.load(range(12))["features"], one.load(range(12))["features"])
    before = {path.name: path.stat().st_mtime_ns for path in copy.glob("tracks-*")}
    layout.shard_path(copy, 2).unlink()
    object_store.fetch(store, copy)
    after = {path.name: path.stat().st_mtime_ns for path in copy.glob("tracks-*")}
    assert [name for name in before if before[name] != after[name]] == [
        layout.shard_path(copy, 2).name
    ]


def test_new_tracks_reach_readers_and_dropped_ones_leave_the_store(tmp_path, store, written):
    metadata = write_collection(tmp_path / "music", 12)
    run(metadata, tmp_path / "one", store)
    copy = tmp_path / "copy"
    copy.mkdir()
    object_store.fetch(store, copy)
    rows = files.read_csv(metadata)
    files.write_csv(metadata, list(rows[0]), rows[:6])
    written.clear()
    run(metadata, tmp_path / "one", store)
    assert written == [1]
    assert {f"shard-{k:05d}.json" for k in range(2)} <= set(there(store))
    assert "shard-00002.json" not in there(store)
    object_store.fetch(store, copy)
    assert list(reader.Records(copy).ids) == [f"track-{i}" for i in range(6)]


def test_records_extracted_before_are_put_there(collection, tmp_path, store, written):
    run(collection, tmp_path / "local", None)
    written.clear()
    assert run(collection, tmp_path / "local", store)[0] is False
    assert written == []
    (tmp_path / "copy").mkdir()
    object_store.fetch(store, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(tmp_path / "local")


@pytest.mark.parametrize("kind", ["shard", "marker", "index"])
def test_what_is_damaged_there_is_noticed_and_written_again(
    collection, tmp_path, store, written, kind
):
    run(collection, tmp_path / "one", store)
    reference = contents(tmp_path / "one")
    name = {
        "shard": layout.shard_path(Path(), 1).name,
        "marker": layout.marker_path(Path(), 1).name,
        "index": layout.INDEX,
    }[kind]
    filesystem, path = fsspec.core.url_to_fs(store)
    content = bytearray(filesystem.cat_file(f"{path}/{name}"))
    content[len(content) // 2] ^= 1
    filesystem.pipe_file(f"{path}/{name}", bytes(content))
    (tmp_path / "copy").mkdir()
    with pytest.raises(UserError, match=r"damaged.*run --stage=features again"):
        object_store.fetch(store, tmp_path / "copy")
    written.clear()
    run(collection, tmp_path / "two", store)
    assert written == ([] if kind == "index" else [1])
    assert contents(tmp_path / "two") == reference
    object_store.fetch(store, tmp_path / "copy")
    assert contents(tmp_path / "copy") == reference


def test_records_that_are_not_finished_are_not_read(collection, tmp_path, store, written):
    with pytest.raises(UserError, match=r"no finished features: run --stage=features first"):
        object_store.fetch(store, tmp_path)
    run(collection, tmp_path / "one", store)
    object_store.reopen(store)
    with pytest.raises(UserError, match=r"no finished features: run --stage=features first"):
        object_store.fetch(store, tmp_path)


@pytest.fixture
def s3(monkeypatch):
    """Return the URL of an empty bucket on a server that speaks S3, on this machine."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="music")
    yield "s3://music"
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_one_machine_extracts_and_another_trains(collection, tmp_path, kind, request):
    bucket = request.getfixturevalue("s3") if kind == "s3" else f"file://{tmp_path}/bucket"
    filesystem, path = fsspec.core.url_to_fs(bucket)
    filesystem.put(f"{collection.parent}/", f"{path}/raw/", recursive=True)

    def main(machine: str, *arguments: str) -> subprocess.CompletedProcess:
        folder = tmp_path / machine
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "vae_jax.main", f"--config={CONFIG}"]
        command += [f"--config.manifest={bucket}/raw/metadata.csv"]
        command += [f"--config.data_dir={bucket}/features"]
        command += ["--config.feature.sample_rate=8000", "--config.feature.shard_size=4"]
        command += ["--config.train.num_steps=4", "--config.train.batch_size=4"]
        return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True)

    none_yet = main("trainer", "--stage=train")
    assert none_yet.returncode == 1
    assert "holds no finished features" in none_yet.stderr
    assert "Traceback" not in none_yet.stderr
    extracted = main("extractor", "--stage=features")
    assert extracted.returncode == 0, extracted.stderr
    assert f"{bucket}/features/records/" in extracted.stdout
    shutil.rmtree(tmp_path / "extractor")
    trained = main("trainer", "--stage=train")
    assert trained.returncode == 0, trained.stderr
    embedded = main("trainer", "--stage=embed")
    assert embedded.returncode == 0, embedded.stderr
    latents = np.load(tmp_path / "trainer" / "results" / "mlp" / "latents.npz")
    assert len(latents["ids"]) == 12
    again = main("another", "--stage=features")
    assert "features: up to date" in again.stderr, again.stderr
