"""Feature extraction as a Beam pipeline, in worker processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_collection
from vae_jax import manifest
from vae_jax.config import feature_settings, get_config, training_settings
from vae_jax.errors import UserError
from vae_jax.features import extract
from vae_jax.records import layout, object_store
from vae_jax.storage import files

CONFIG = Path(__file__).parents[2] / "configs" / "mlp.py"
IN_MEMORY = "--direct_running_mode=in_memory --direct_num_workers=1"  # starts in no time
needs_beam = pytest.mark.usefixtures("beam")


@pytest.fixture
def beam():
    return pytest.importorskip(
        "vae_jax.features.beam", reason="apache-beam is not installed", exc_type=ImportError
    )


def feature(runner: str, **changes):
    config = get_config().feature
    config.update(sample_rate=8000, duration=1.0, n_mels=32, n_fft=512, hop_length=256, n_mfcc=8)
    config.update(shard_size=4, num_workers=2, runner=runner)
    config.update(changes)
    return config.to_dict()


def run(metadata, directory: Path, runner: str = "beam", options: str = "", **changes):
    settings = feature(runner, **changes)
    return extract.extract(manifest.read(metadata), settings, directory, beam_options=options)


def contents(directory: Path) -> dict[str, bytes]:
    """Return all files but markers, which hold the time of their shard's file."""
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if not path.name.startswith("shard-")
    }


@pytest.fixture
def collection(tmp_path):
    """Return the manifest of ten tracks with lyrics, two of them with audio that fails."""
    metadata = write_collection(tmp_path / "music", 10)
    (metadata.parent / "audio" / "3.wav").write_text("this is no audio")
    (metadata.parent / "audio" / "7.wav").unlink()
    rows = files.read_csv(metadata)
    words = ("love me tender tonight", "dance all night long", "rain falls on my window")
    lyrics = [" ".join([words[i % 3]] * 5) if i != 7 else "" for i in range(10)]
    rows = [row | {"lyrics": text} for row, text in zip(rows, lyrics, strict=True)]
    files.write_csv(metadata, ("id", "audio_path", "label", "lyrics"), rows)
    return metadata


@pytest.mark.slow
@needs_beam
def test_beam_workers_write_the_bytes_of_the_local_pool(collection, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    for runner in ("local", "beam"):
        _, failures = run(collection, tmp_path / runner, runner)
        extract.write_failures(tmp_path / f"{runner}.csv", failures)
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")
    assert (tmp_path / "beam.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
    assert len(files.read_csv(tmp_path / "beam.csv")) == 2
    assert "counted failures 2, seconds_of_audio 8, tracks 10" in caplog.text


@needs_beam
def test_what_is_finished_is_kept_whoever_finished_it(collection, tmp_path):
    run(collection, tmp_path / "records", "local")
    assert run(collection, tmp_path / "records")[0] is False
    layout.shard_path(tmp_path / "records", 1).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("records/tracks-*")}
    assert run(collection, tmp_path / "records", options=IN_MEMORY)[0] is True
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("records/tracks-*")}
    assert [name for name in before if after[name] != before[name]] == []
    assert len(after) == 3


@needs_beam
def test_shards_travel_through_a_url_to_the_same_bytes(collection, tmp_path):
    hybrid = {"name": "hybrid", "lyrics_embed_dim": 2}
    url = f"file://{collection}"
    store = f"file://{tmp_path}/bucket"
    run(url, tmp_path / "local", "local", **hybrid)
    run(url, tmp_path / "beam", options=f"{IN_MEMORY} --temp_location={store}", **hybrid)
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")
    assert list((tmp_path / "bucket").iterdir()) == []
    assert run(url, tmp_path / "beam", **hybrid)[0] is False


@needs_beam
def test_shards_that_are_at_the_url_are_fetched_and_not_written_again(
    beam, collection, tmp_path, monkeypatch
):
    options = f"{IN_MEMORY} --temp_location=file://{tmp_path}/bucket"
    with monkeypatch.context() as patch:
        patch.setattr(beam.urls, "remove", lambda folder: None)
        run(collection, tmp_path / "records", options=options)
    before = contents(tmp_path / "records")
    (tmp_path / "bucket" / "vae_jax-records" / "shard-00001.json").write_text("{")
    for path in (tmp_path / "records").iterdir():
        path.unlink()
    written = []
    pipeline = beam._run_pipeline
    monkeypatch.setattr(
        beam, "_run_pipeline", lambda names, *rest: (written.extend(names), pipeline(names, *rest))
    )
    run(collection, tmp_path / "records", options=options)
    assert written == ["job-00001.json"]
    assert contents(tmp_path / "records") == before


@needs_beam
def test_workers_put_shards_where_the_records_are_kept(collection, tmp_path):
    hybrid = {"name": "hybrid", "lyrics_embed_dim": 2}
    store = f"file://{tmp_path}/bucket"
    run(collection, tmp_path / "local", "local", **hybrid)
    settings, tracks = feature("beam", **hybrid), manifest.read(collection)
    options = {"beam_options": IN_MEMORY, "store": store}
    assert extract.extract(tracks, settings, tmp_path / "beam", **options)[0] is True
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")
    assert [*(tmp_path / "bucket").rglob("job-*.json")] == []
    (tmp_path / "copy").mkdir()
    object_store.fetch(store, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(tmp_path / "bucket")
    assert extract.extract(tracks, settings, tmp_path / "beam", **options)[0] is False


@pytest.mark.slow
@needs_beam
def test_a_pipeline_that_fails_says_why(collection, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--beam_options='x is not understood"):
        run(collection, tmp_path / "records", options="'x")
    with pytest.raises(UserError, match="--beam_options=--direct_num_workers=many is not"):
        run(collection, tmp_path / "records", options="--direct_num_workers=many")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "soxr.py").write_text("raise RuntimeError('no resampler on this worker')")
    with pytest.raises(UserError, match=r"the Beam pipeline failed: .*no resampler on this worker"):
        run(collection, tmp_path / "records")


@needs_beam
def test_shards_that_workers_put_elsewhere_are_missed(beam, collection, tmp_path, monkeypatch):
    monkeypatch.setattr(beam, "_run_pipeline", lambda *arguments: None)
    with pytest.raises(UserError, match=r"shard 0 is not in .* need --temp_location=URL"):
        run(collection, tmp_path / "records")


@pytest.mark.slow
@needs_beam
def test_the_command_line_hands_the_options_to_beam(collection, tmp_path):
    command = [sys.executable, "-m", "vae_jax.main", f"--config={CONFIG}", "--stage=features"]
    command += [f"--config.manifest={collection}", "--config.feature.runner=beam"]
    command += ["--config.feature.sample_rate=8000", "--config.feature.shard_size=4"]
    command += [f"--beam_options=--direct_num_workers=2 --temp_location=file://{tmp_path}/bucket"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Beam counted failures 2, seconds_of_audio 8, tracks 10" in done.stderr
    assert len(files.read_csv(tmp_path / "results" / "mlp" / "failed.csv")) == 2
    assert (tmp_path / "bucket").is_dir()


def test_the_runner_changes_nothing_that_is_stored_or_learned():
    for settings in (feature_settings, training_settings):
        assert settings(feature("local")) == settings(feature("beam"))


def test_beam_options_without_beam_are_refused(collection, tmp_path):
    with pytest.raises(UserError, match=r"needs --config\.feature\.runner=beam"):
        run(collection, tmp_path / "records", "local", options="--runner=FlinkRunner")


def test_without_beam_the_extra_is_named(collection, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "vae_jax.features.beam", raising=False)
    monkeypatch.delattr("vae_jax.features.beam", raising=False)
    with pytest.raises(UserError, match=r"pip install '.*\[beam\]'"):
        run(collection, tmp_path / "records")
