from pathlib import Path

import m3u8
import numpy as np
import pytest
import soundfile

from vae_jax.collection import playlists
from vae_jax.errors import UserError
from vae_jax.manifest import Track

NAMES = ["one.wav", "#two.wav", "space and ünï, 中.wav", "sub/three.wav"]


@pytest.fixture
def tracks(tmp_path):
    """Tracks of two seconds, whose names and tags are odd."""
    (tmp_path / "music" / "sub").mkdir(parents=True)
    found = []
    for i, name in enumerate(NAMES):
        path = tmp_path / "music" / name
        soundfile.write(path, np.zeros(4000 * (i + 1)), 2000)
        columns = {"artist": "Line\nbreak, Inc.", "title": f"Title {i}"} if i else {}
        found.append(Track(f"track {i}", path, "", columns))
    return found


@pytest.mark.parametrize("absolute", [False, True])
def test_another_reader_finds_every_file_and_its_name_and_duration(tmp_path, tracks, absolute):
    path = tmp_path / "lists" / "out.m3u8"
    path.parent.mkdir()
    assert playlists.write(path, tracks, absolute) == len(tracks)
    entries = m3u8.loads(path.read_text("utf-8")).segments
    assert [(path.parent / entry.uri).resolve() for entry in entries] == [
        track.audio_path for track in tracks
    ]
    assert [Path(entry.uri).is_absolute() for entry in entries] == [absolute] * len(tracks)
    assert [entry.duration for entry in entries] == [2, 4, 6, 8]
    titles = ["track 0", *(f"Line break, Inc. - Title {i}" for i in range(1, 4))]
    assert [entry.title for entry in entries] == titles


def test_a_name_that_begins_like_a_comment_is_a_file(tmp_path, tracks):
    path = tmp_path / "music" / "out.m3u8"
    playlists.write(path, tracks)
    assert "./#two.wav" in path.read_text("utf-8").splitlines()


def test_tracks_that_no_playlist_can_name_are_left_out(tmp_path, tracks):
    missing = Track("no audio")
    broken = Track("line break", tmp_path / "a\nb.mp3")
    gone = Track("gone", tmp_path / "gone.mp3", "", {"duration": "61.7"})
    path = tmp_path / "out.m3u8"
    assert playlists.write(path, [missing, broken, gone, tracks[0]]) == 2
    assert [entry.duration for entry in m3u8.loads(path.read_text()).segments] == [62, 2]
    with pytest.raises(UserError, match="none of the tracks has a file"):
        playlists.write(tmp_path / "none.m3u8", [missing, broken])
    assert not (tmp_path / "none.m3u8").exists()
