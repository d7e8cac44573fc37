import os
import shutil

import numpy as np
import pytest

from tests.audio_files import write, write_music
from vae_jax.config import get_config
from vae_jax.errors import UserError
from vae_jax.features import fingerprint
from vae_jax.stages import runner
from vae_jax.storage import files


def test_a_collection_that_cannot_be_read_has_every_reason_in_failed_csv(
    collection, tmp_path, monkeypatch, in_process
):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(collection.parent / "audio")
    config = get_config()
    config.manifest = str(collection)
    with pytest.raises(UserError, match=r"none of the 12 tracks .*results/failed.csv lists them"):
        runner.run_stages(config, tmp_path / "results", ["features"], None)
    rows = files.read_csv(tmp_path / "results" / "failed.csv")
    assert [row["id"] for row in rows] == [f"track-{i}" for i in range(12)]
    assert all(row["reason"] for row in rows)
    assert {(row["kind"], row["remedy"]) for row in rows} == {
        ("missing", "correct audio_path, or bring the file back")
    }


def test_what_is_left_out_or_shortened_is_counted_and_named_by_kind_with_the_remedy(
    collection, tmp_path, monkeypatch, in_process, caplog
):
    monkeypatch.chdir(tmp_path)
    audio = collection.parent / "audio"
    (audio / "0.wav").unlink()
    write(audio / "1.wav", np.zeros(22050), 22050)
    write_music(audio / "2.wav", 0.1)
    (audio / "3.wav").write_bytes(b"ID3\4\0\0\0\0\0\4abcd")
    os.truncate(audio / "4.wav", (audio / "4.wav").stat().st_size * 3 // 4)
    rows = files.read_csv(collection)
    for row in rows:
        row["lyrics"] = f"love and rain {row['id'][-1]}"
    rows[0]["lyrics"], rows[5]["lyrics"], rows[6]["lyrics"] = "", "nan", "la la " * 10_000
    files.write_csv(collection, list(rows[0]), rows)
    config = get_config()
    config.manifest, config.feature.name = str(collection), "hybrid"
    with caplog.at_level("INFO"):
        runner.run_stages(config, tmp_path / "results", ["features"], None)
    failed = files.read_csv(tmp_path / "results" / "failed.csv")
    assert [(row["id"], row["kind"], row["kept"]) for row in failed] == [
        ("track-0", "missing", "False"),
        ("track-1", "silent", "True"),
        ("track-2", "too short", "True"),
        ("track-3", "no audio", "True"),
        ("track-5", "no lyrics", "True"),
    ]
    warnings = files.read_csv(tmp_path / "results" / "warnings.csv")
    assert [(row["id"], row["warning"].partition(":")[0]) for row in warnings] == [
        ("track-4", "shorter than its header"),
        ("track-6", "lyrics cut"),
    ]
    assert all(row["remedy"] for row in failed + warnings)
    assert "left out (1 missing); " in caplog.text
    assert "(1 silent, 1 too short, 1 no audio, 1 no lyrics); " in caplog.text
    assert "(1 shorter than its header, 1 lyrics cut); " in caplog.text


@pytest.fixture
def with_copies(collection, tmp_path, monkeypatch, in_process):
    """The config of a collection in which tracks 2 and 7 are copies of track 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fingerprint, "is_installed", lambda: True)  # a second is too little anyway
    for row in (2, 7):
        shutil.copy(
            collection.parent / "audio" / "0.wav", collection.parent / "audio" / f"{row}.wav"
        )
    config = get_config()
    config.manifest, config.duplicates = str(collection), "drop"
    return config


def test_duplicates_that_are_dropped_are_in_no_later_stage(with_copies, tmp_path):
    run = runner.run_stages(with_copies, tmp_path / "results", ["features"], None)
    dropped = files.read_csv(tmp_path / "results" / "dropped.csv")
    assert [(row["id"], row["same_as"], row["kind"]) for row in dropped] == [
        ("track-2", "track-0", "file"),
        ("track-7", "track-0", "file"),
    ]
    kept = [i for i in range(12) if i not in (2, 7)]
    assert run.records.ids.tolist() == [f"track-{i}" for i in kept]
    everything = run.all_records
    assert run.records.content != everything.content
    for name, values in run.records.load(np.arange(10)).items():
        np.testing.assert_array_equal(values, everything.load(kept)[name])


def test_duplicates_are_kept_by_default_and_again_after_they_were_dropped(with_copies, tmp_path):
    runner.run_stages(with_copies, tmp_path / "results", ["features"], None)
    with_copies.duplicates = "keep"
    run = runner.run_stages(with_copies, tmp_path / "results", ["features"], None)
    assert len(run.records) == 12
    assert not (tmp_path / "results" / "dropped.csv").exists()


def test_duplicates_are_not_dropped_without_chromaprint(with_copies, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "is_installed", lambda: False)
    with pytest.raises(UserError, match=r"ffmpeg with Chromaprint.*--config\.duplicates=keep"):
        runner.run_stages(with_copies, tmp_path / "results", ["features"], None)
