"""Collections that benchmarks derive from others."""

from collections import Counter

import numpy as np
import pytest
import soundfile

from benchmarks import derive
from tests.conftest import write_collection
from vae_jax import manifest
from vae_jax.errors import UserError
from vae_jax.storage import files


@pytest.fixture
def music(tmp_path):
    """Return the manifest of twelve tracks of three genres."""
    path = write_collection(tmp_path / "music", 12)
    rows = [row | {"genre": row["label"]} for row in files.read_csv(path)]
    files.write_csv(path, list(rows[0]), rows)
    return path


@pytest.fixture
def songs(tmp_path):
    """Return the manifest of eight songs in two languages."""
    path = tmp_path / "songs.csv"
    rows = [
        {"id": f"{language}-{i}", "language": language, "lyrics": f"{language} song {i}"}
        for language in ("de", "en")
        for i in range(4)
    ]
    files.write_csv(path, list(rows[0]), rows)
    return path


def test_halves_are_the_track_in_two_by_one_artist(music, tmp_path):
    tracks = manifest.read(derive.halves(music, tmp_path / "halves"))
    assert Counter(track.columns["artist"] for track in tracks) == {
        f"track-{i}": 2 for i in range(12)
    }
    whole, _ = soundfile.read(music.parent / "audio" / "0.wav")
    parts = [soundfile.read(str(track.audio_path))[0] for track in tracks[:2]]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2**-15)


def test_every_other_track_of_a_genre_gets_a_song_of_its_own(music, songs, tmp_path):
    path = derive.half_lyrics(music, songs, tmp_path / "half")
    tracks = manifest.read(path)
    sung = [track for track in tracks if track.lyrics]
    assert Counter(track.columns["genre"] for track in sung) == Counter(noise=2, tone=2, chord=2)
    assert len({track.lyrics for track in sung}) == 6
    assert all(track.lyrics.startswith(track.columns["language"]) for track in sung)
    assert all(not track.columns["language"] for track in tracks if not track.lyrics)
    before = path.read_bytes()
    assert derive.half_lyrics(music, songs, tmp_path / "half").read_bytes() == before
    others = [derive.half_lyrics(music, songs, tmp_path / f"{i}", i) for i in range(1, 4)]
    assert any(other.read_bytes() != before for other in others)


def test_too_few_songs_are_named(music, songs, tmp_path):
    rows = files.read_csv(songs)
    files.write_csv(songs, list(rows[0]), rows[:2])
    with pytest.raises(UserError, match=r"songs\.csv has too few songs for half of the tracks"):
        derive.half_lyrics(music, songs, tmp_path / "half")
