"""Equal files and recordings, among melodies that are synthesised and encoded by ffmpeg."""

import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vae_jax import manifest
from vae_jax.collection import duplicates
from vae_jax.errors import UserError
from vae_jax.features import fingerprint
from vae_jax.features.fingerprint import Print
from vae_jax.storage import files

RATE = 22050
SECONDS = 16


@dataclass
class Run:
    """What `duplicates.find` reads of a run's results."""

    path: Path
    latents: np.ndarray

    @cached_property
    def manifest(self):
        return manifest.read(self.path)

    @property
    def outdir(self):
        return self.path.parent / "results"

    @property
    def ids(self):
        return list(self.manifest.ids)

    @property
    def rows(self):
        return {id_: row for row, id_ in enumerate(self.ids)}


def melody(seed: int) -> np.ndarray:
    """Chords of three notes with overtones, four a second."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // 4) / RATE
    beats = []
    for _ in range(4 * SECONDS):
        notes = 220 * 2 ** (rng.choice(24, 3, replace=False) / 12)
        waves = [np.sin(2 * np.pi * k * f * time) / k for f in notes for k in (1, 2, 3)]
        beats.append(np.sum(waves, axis=0) * np.exp(-3 * time))
    return 0.1 * np.concatenate(beats)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Melodies, one of them four times more: copied, encoded, cut and made softer."""
    if not fingerprint.is_installed():
        pytest.skip("there is no ffmpeg with Chromaprint")
    folder = tmp_path_factory.mktemp("music")
    for seed in range(6):
        soundfile.write(folder / f"{seed}.wav", melody(seed), RATE)
    shutil.copy(folder / "0.wav", folder / "copy.wav")
    encode(folder, "mp3.mp3", "-b:a", "64k")
    encode(folder, "cut.ogg", "-ss", "2")
    encode(folder, "soft.flac", "-af", "volume=-9dB", "-ar", "16000")
    soundfile.write(folder / "silent.wav", 1e-3 * np.ones(RATE * SECONDS), RATE)
    soundfile.write(folder / "held.wav", np.sin(np.arange(RATE * SECONDS) / 9), RATE)
    names = sorted(path.name for path in folder.iterdir())
    rows = [{"id": Path(name).stem, "audio_path": name} for name in names]
    files.write_csv(folder / "metadata.csv", ("id", "audio_path"), rows)
    latents = np.random.default_rng(0).normal(size=(len(rows), 4)).astype(np.float32)
    return Run(folder / "metadata.csv", latents)


def encode(folder: Path, name: str, *options: str) -> None:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", folder / "0.wav", *options]
    subprocess.run([*command, folder / name], check=True)


def test_one_recording_in_any_form_is_found_and_others_stay_apart(run):
    found = duplicates.find(run)
    recordings = [one for one in found if one.kind != duplicates.ALIKE]
    assert {one.id for one in recordings} == {"0", "copy", "mp3", "cut", "soft"}
    assert len({one.group for one in recordings}) == 1
    kinds = {one.id: one.kind for one in recordings}
    assert kinds.pop("copy") == duplicates.FILE
    assert set(kinds.values()) == {duplicates.RECORDING}


def test_fingerprints_are_kept_for_the_next_call(run, monkeypatch):
    found = duplicates.find(run)
    monkeypatch.setattr(fingerprint, "compute", _fail)
    assert duplicates.find(run) == found
    kept = run.outdir / "fingerprints.npz"
    kept.write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="computed again"):
        duplicates.find(run)
    kept.unlink()


def _fail(path):
    raise AssertionError("computed again")


def test_copies_are_found_by_their_sound_alone_and_however_many_there_are(run, monkeypatch):
    monkeypatch.setattr(duplicates, "PROPOSED", 1)
    found = [one for one in duplicates.find(run) if one.kind != duplicates.ALIKE]
    assert {one.id for one in found} == {"0", "copy", "mp3", "cut", "soft"}
    assert len({one.group for one in found}) == 1


def test_recordings_of_other_lengths_stay_apart():
    items = np.random.default_rng(0).integers(0, 2**32, 300, dtype=np.uint32)
    short, longer = Print(items, 60.0), Print(items, 81.0)
    assert fingerprint.likeness(short, short) == 1
    assert fingerprint.likeness(short, longer) == 0


def test_without_fingerprints_equal_files_are_found(run):
    found = [one for one in duplicates.find(run, False) if one.kind != duplicates.ALIKE]
    assert {one.id for one in found} == {"0", "copy"}
    assert {one.kind for one in found} == {duplicates.FILE}


def test_tracks_that_are_alike_are_listed_in_pairs_and_belong_to_no_group(run):
    points = run.latents.copy()
    rows = run.rows
    points[rows["1"]] = points[rows["2"]] + 1e-3
    found = duplicates.find(Run(run.path, points))
    (pair,) = [{one.id for one in found if one.group == g} for g in _groups(found)]
    assert pair == {"1", "2"}


def _groups(found):
    return {one.group for one in found if one.kind == duplicates.ALIKE}


def test_a_track_joins_a_group_only_if_it_is_the_same_as_all_of_it():
    same = {(0, 1): 0.9, (1, 2): 0.8, (3, 4): 0.8, (4, 5): 0.8, (3, 5): 0.8}
    same = {pair: 0.1 + value for pair, value in same.items()}
    assert duplicates._cliques(6, duplicates._Sameness(same)) == [[0, 1], [3, 4, 5]]


def test_silence_and_held_notes_are_no_evidence():
    held = np.full(200, 12345, np.uint32)
    assert fingerprint.similarity(held, held) == 0
    assert fingerprint.similarity(np.zeros(0, np.uint32), held) == 0


def test_a_shifted_fingerprint_is_recognised_and_a_far_shifted_one_is_not():
    items = np.random.default_rng(0).integers(0, 2**32, 600, dtype=np.uint32)
    assert fingerprint.similarity(items[:300], items[16:316]) == 1
    assert fingerprint.similarity(items[:300], items[200:500]) < 0.6
    assert fingerprint.similarity(items[:250], items[300:550]) < 0.6


def test_without_chromaprint_the_error_says_what_to_do(monkeypatch):
    fingerprint.is_installed.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"ffmpeg with Chromaprint.*--nofingerprint"):
        duplicates.find(Run(Path("metadata.csv"), np.zeros((2, 1))))
    fingerprint.is_installed.cache_clear()
