"""Sources of music: the real clients against servers on loopback, real tags in real files."""

import contextlib
import csv
import http.server
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import mutagen
import mutagen.id3
import mutagen.mp3
import numpy as np
import pytest
import soundfile

from tests.audio_files import forge_flac_length
from tests.hub_server import COMMIT, HubServer
from vae_jax import manifest
from vae_jax.download import __main__ as command
from vae_jax.download import folder, hub, jamendolyrics, kaggle, local, mtg_jamendo, tags
from vae_jax.errors import UserError
from vae_jax.storage import files

RANDOM = np.random.default_rng(0)
ISOLATED = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_test"}


def noise(size: int) -> bytes:
    return RANDOM.bytes(size)


SONGS = """URL,Filepath,Artist,Title,Genre,LicenseType,Language,LyricOverlap,Polyphonic,NonLexical
https://x/1,Ann_-_One.mp3,Ann,One,Pop,BY,English,false,false,false
https://x/2,Bob_-_Two.mp3,"Bob, Jr.",Two,Rock,BY-SA,English,false,false,false
https://x/3,Zoé_-_Été.mp3,ZOÉ,Été,Hip-Hop,CC BY,French,false,false,false
https://x/4,Jörg_-_Los.mp3,Jörg,Los,Rock,CC BY-NC,German,false,true,false
"""


def songs_repository() -> dict[str, bytes]:
    """Return files laid out as jamendolyrics/jamendolyrics, decomposed accents included."""
    names = {"en": ["Ann_-_One", "Bob_-_Two"], "fr": ["Zoé_-_Été"], "de": ["Jörg_-_Los"]}
    repository = {"JamendoLyrics.csv": SONGS.encode(), "README.md": b"songs"}
    for language, stems in names.items():
        for stem in stems:
            path = f"subsets/{language}/mp3/{stem}.mp3"
            repository[path] = noise(50_000)
            repository[f"mp3/{stem}.mp3"] = f"../{path}".encode()  # a link, as git stores it
            repository[f"lyrics/{stem}.txt"] = f"la {stem}\n\nlala\n".encode()
            repository[f"lyrics/{stem}.words.txt"] = b"la\nlala\n"
    return repository


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the client from the network, from this machine's log-in and from long pauses."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    for name, value in {**ISOLATED, "HF_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)


Serve = Callable[..., HubServer]


@pytest.fixture
def serve(isolated: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Return a function that starts a hub and points the client at it."""
    started = []

    def start(repository: dict[str, bytes], **settings: object) -> HubServer:
        server = HubServer(repository, **settings)  # type: ignore[arg-type]
        server.__enter__()
        started.append(server)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        return server

    yield start
    for server in started:
        server.__exit__(None, None, None)


def songs(data_dir: Path, language: str | None = "English", revision: str | None = None) -> Path:
    return jamendolyrics.download("owner/name", language, data_dir, revision)


# The Hugging Face hub: JamendoLyrics


def test_jamendolyrics_writes_songs_lyrics_and_a_manifest_of_one_language(
    serve: Serve, tmp_path: Path
) -> None:
    repository = songs_repository()
    serve(repository)
    path = songs(tmp_path)
    read = manifest.read(path)
    assert list(read.columns)[:5] == ["audio_path", "language", "genre", "label", "lyrics"]
    assert [track.id for track in read] == ["Ann_-_One", "Bob_-_Two"]
    for track in read:
        assert track.audio_path is not None
        assert track.audio_path.read_bytes() == repository[f"subsets/en/mp3/{track.id}.mp3"]
        assert track.lyrics == f"la {track.id}\n\nlala"
    assert read[1].columns == {
        **{"language": "en", "genre": "Rock", "label": "English", "artist": "Bob, Jr."},
        **{"title": "Two", "license": "BY-SA", "url": "https://x/2"},
    }
    assert sorted(file.name for file in (tmp_path / "lyrics").iterdir()) == [
        "Ann_-_One.txt",
        "Bob_-_Two.txt",
    ]


def test_the_record_beside_the_manifest_pins_the_commit(serve: Serve, tmp_path: Path) -> None:
    server = serve(songs_repository())
    record = files.read_json(local.record_path(songs(tmp_path, revision="main")))
    assert record["revision"] == COMMIT
    assert (record["repo_id"], record["endpoint"]) == ("owner/name", server.url)
    assert record["manifest_sha256"] == files.sha256(tmp_path / "metadata.csv")


def test_all_languages_come_without_a_language_and_names_with_accents_are_found(
    serve: Serve, tmp_path: Path
) -> None:
    import unicodedata

    repository = songs_repository()
    decomposed = {unicodedata.normalize("NFD", name): data for name, data in repository.items()}
    serve(decomposed)
    read = manifest.read(songs(tmp_path, None))
    assert [track.columns["language"] for track in read] == ["en", "en", "fr", "de"]
    assert all(track.audio_path and track.audio_path.exists() for track in read)
    assert read[2].columns["label"] == "French"


@pytest.mark.parametrize("language", ["de", "GERMAN", " german "])
def test_a_language_is_given_by_name_or_code(serve: Serve, tmp_path: Path, language: str) -> None:
    serve(songs_repository())
    assert [track.id for track in manifest.read(songs(tmp_path, language))] == ["Jörg_-_Los"]


def test_an_unknown_language_lists_those_there_are(serve: Serve, tmp_path: Path) -> None:
    serve(songs_repository())
    with pytest.raises(UserError, match=r"'Dutch': choose one of English, French, German,"):
        songs(tmp_path, "Dutch")


def test_finished_files_are_not_fetched_again_and_damaged_ones_are(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(songs_repository())
    songs(tmp_path)
    server.requests.clear()
    songs(tmp_path)
    assert server.fetched() == []
    damaged = tmp_path / "audio" / "Ann_-_One.mp3"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # same size
    songs(tmp_path)
    assert server.fetched() == ["subsets/en/mp3/Ann_-_One.mp3"]
    assert damaged.read_bytes() == content


def test_the_token_goes_to_the_hub(serve: Serve, tmp_path: Path) -> None:
    server = serve(songs_repository())
    songs(tmp_path)
    assert server.requests[0].token == "Bearer hf_test"


# Interruptions

ONE = "subsets/en/mp3/Ann_-_One.mp3"


@pytest.mark.parametrize("fault", ["cut", "500", "503"])
def test_a_broken_connection_or_server_error_heals_within_the_run(
    serve: Serve, tmp_path: Path, fault: str
) -> None:
    repository = songs_repository()
    server = serve(repository, faults={ONE: [fault]})
    songs(tmp_path)
    assert (tmp_path / "audio/Ann_-_One.mp3").read_bytes() == repository[ONE]
    starts = [request.start for request in server.requests if request.path == ONE]
    assert len(starts) == 2
    assert (starts[1] > 0) == (fault == "cut")


def test_a_truncated_file_is_an_error_and_the_next_run_continues_it(
    serve: Serve, tmp_path: Path
) -> None:
    repository = songs_repository()
    server = serve(repository, faults={ONE: "short"})
    with pytest.raises(UserError, match=r"arrived incomplete: run the same command again"):
        songs(tmp_path)
    assert not (tmp_path / "audio/Ann_-_One.mp3").exists()
    assert not (tmp_path / "metadata.csv").exists()
    server.faults.clear()
    server.requests.clear()
    songs(tmp_path)
    assert (tmp_path / "audio/Ann_-_One.mp3").read_bytes() == repository[ONE]
    assert [request.start for request in server.requests if request.path == ONE] == [25_000]


def test_a_server_without_ranges_sends_the_whole_file_again(serve: Serve, tmp_path: Path) -> None:
    repository = songs_repository()
    server = serve(repository, faults={ONE: ["short"]})
    with pytest.raises(UserError, match="incomplete"):
        songs(tmp_path)
    server.faults = {ONE: ["no_range"]}
    songs(tmp_path)
    assert (tmp_path / "audio/Ann_-_One.mp3").read_bytes() == repository[ONE]


# Shells start background jobs with SIGINT ignored; a terminal does not.
RUN = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('vae_jax.download', run_name='__main__', alter_sys=True)"
)


@pytest.mark.parametrize(
    ("signal_", "status"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, command.INTERRUPTED)],
)
def test_a_stopped_download_continues_where_it_was(
    serve: Serve, tmp_path: Path, signal_: signal.Signals, status: int
) -> None:
    repository = songs_repository()
    repository[ONE] = noise(12_000_000)
    server = serve(repository, faults={ONE: ["stall"]}, stall_bytes=11_000_000)
    line = ["jamendolyrics", "--language", "en", "--repo_id", "owner/name", "--data_dir"]
    arguments = [sys.executable, "-c", RUN, *line, str(tmp_path / "data")]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    work = tmp_path / "data" / local.WORK_FOLDER

    def written() -> int:
        sizes = []
        for file in work.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):  # a shorter file that is complete by now
                sizes.append(file.stat().st_size)
        return max(sizes, default=0)

    pause = threading.Event()
    while written() < 10 * 2**20 and process.poll() is None:
        pause.wait(0.02)
    process.send_signal(signal_)
    assert process.wait(8) == status  # sooner than the client's timeout
    assert written() == 10 * 2**20  # the client writes blocks of this size
    server.released.set()
    server.requests.clear()
    songs(tmp_path / "data")
    assert [request.start for request in server.requests if request.path == ONE] == [10 * 2**20]
    assert (tmp_path / "data/audio/Ann_-_One.mp3").read_bytes() == repository[ONE]


def test_a_wrong_content_is_fetched_again(serve: Serve, tmp_path: Path) -> None:
    repository = songs_repository()
    server = serve(repository, faults={ONE: ["corrupt"], "lyrics/Ann_-_One.txt": ["corrupt"]})
    songs(tmp_path)
    assert server.fetched().count(ONE) == 2
    assert server.fetched().count("lyrics/Ann_-_One.txt") == 2  # checked by git's hash
    assert (tmp_path / "audio/Ann_-_One.mp3").read_bytes() == repository[ONE]


def test_a_content_that_stays_wrong_is_refused(serve: Serve, tmp_path: Path) -> None:
    serve(songs_repository(), faults={ONE: "corrupt"})
    with pytest.raises(UserError, match=r"Ann_-_One.mp3 .* another content than the hub announces"):
        songs(tmp_path)
    assert not (tmp_path / "audio/Ann_-_One.mp3").exists()


# What the hub refuses


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", r"asks for a valid log-in to read owner/name \(401\): run `hf auth login`"),
        ("401 RepoNotFound", r"has no data set 'owner/name' .* log in with `hf auth login`"),
        ("404 RepoNotFound", r"has no data set 'owner/name'"),
        ("403", r"you may not read owner/name \(403\)"),
        ("403 GatedRepo", r"owner/name is gated: accept its terms at http.*/datasets/owner/name"),
        ("404", r"gone \(404\)"),
        ("500", r"fails \(error 500\): wait"),
        ("503", r"fails \(error 503\): wait"),
        ("<html>log in to the hotel</html>", r"does not answer as a Hugging Face hub does"),
        ("{}", r"does not answer as a Hugging Face hub does"),
    ],
)
def test_a_listing_that_fails_is_one_clear_sentence(
    serve: Serve, tmp_path: Path, fault: str, message: str
) -> None:
    serve(songs_repository(), listing_fault=fault)
    with pytest.raises(UserError, match=message) as error:
        songs(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401 GatedRepo", r"is gated: .* log in with `hf auth login` \(or set HF_TOKEN\)"),
        ("403", r"you may not read owner/name"),
        ("404 EntryNotFound", r"a file of owner/name is gone \(404\)"),
        ("502", r"fails \(error 502\)"),
    ],
)
def test_a_file_that_is_refused_is_one_clear_sentence(
    serve: Serve, tmp_path: Path, fault: str, message: str
) -> None:
    serve(songs_repository(), faults={ONE: fault})
    with pytest.raises(UserError, match=message):
        songs(tmp_path)


def test_an_unknown_revision_is_named(serve: Serve, tmp_path: Path) -> None:
    serve(songs_repository())
    with pytest.raises(UserError, match=r"no revision 'v9': check --revision"):
        songs(tmp_path, revision="v9")


def test_no_network_is_one_clear_sentence(
    isolated: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"cannot reach http://127.0.0.1:1 .*: check the network"):
        songs(tmp_path)


def test_a_malformed_data_set_name_is_refused(serve: Serve, tmp_path: Path) -> None:
    serve(songs_repository())
    with pytest.raises(UserError, match=r"'a/b/c' is not a data set's name: write OWNER/NAME"):
        jamendolyrics.download("a/b/c", None, tmp_path, None)


def test_another_repository_s_layout_is_an_error(serve: Serve, tmp_path: Path) -> None:
    serve({"README.md": b"none"})
    with pytest.raises(UserError, match=r"not laid out as JamendoLyrics"):
        songs(tmp_path)


def test_a_missing_package_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"huggingface_hub: run pip install .*\[download\]'"):
        songs(tmp_path)


# Confinement, disk, concurrency


@pytest.mark.parametrize(
    "name",
    ["../evil.mp3", "/etc/evil.mp3", "a/../../evil", "C:\\evil", "a\\..\\b", "", "a\nb", "."],
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="refused the remote file name"):
        local.confined(tmp_path, name)


def test_a_listing_with_a_name_that_leads_outside_is_refused(serve: Serve, tmp_path: Path) -> None:
    server = serve({**songs_repository(), "subsets/en/mp3/../../../../evil.mp3": b"x"})
    with pytest.raises(UserError, match="refused the remote file name"):
        songs(tmp_path)
    assert server.fetched() == []


def test_an_index_with_a_name_that_leads_outside_is_refused(serve: Serve, tmp_path: Path) -> None:
    index = SONGS.replace("Ann_-_One.mp3", "../../Ann_-_One.mp3").encode()
    serve({**songs_repository(), "JamendoLyrics.csv": index})
    with pytest.raises(UserError, match="refused the remote file name"):
        songs(tmp_path / "data")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_a_link_out_of_the_target_folder_is_not_followed(serve: Serve, tmp_path: Path) -> None:
    serve(songs_repository())
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "audio").symlink_to(outside)
    (outside / "Ann_-_One.mp3").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="a symbolic link leads it outside"):
        songs(tmp_path / "data")


def test_a_full_disk_is_one_clear_sentence_and_the_next_run_continues(
    serve: Serve, tmp_path: Path
) -> None:
    repository = songs_repository()
    server = serve(repository)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"no room left on the disk of .*: make some"):
            songs(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    server.requests.clear()
    songs(tmp_path)
    assert (tmp_path / "audio/Ann_-_One.mp3").read_bytes() == repository[ONE]
    assert 20_000 in [request.start for request in server.requests]


def test_too_little_room_is_said_before_anything_is_fetched(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(songs_repository())
    usage = type("Usage", (), {"free": 60_000})()
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"no room for the download: it needs"):
        songs(tmp_path)
    assert ONE not in server.fetched()


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(
    serve: Serve, tmp_path: Path
) -> None:
    serve(songs_repository())
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*data"):
        songs(tmp_path / "data")


def test_a_second_download_into_the_same_folder_is_refused(serve: Serve, tmp_path: Path) -> None:
    serve(songs_repository())
    with (
        local.work_folder(tmp_path),
        pytest.raises(UserError, match="another download is writing"),
    ):
        songs(tmp_path)
    songs(tmp_path)


def test_a_manifest_that_no_download_wrote_or_that_was_edited_is_kept(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(songs_repository())
    path = tmp_path / "metadata.csv"
    path.write_text("id\nmine\n")
    with pytest.raises(UserError, match="move it away"):
        songs(tmp_path)
    assert server.requests == []
    path.unlink()
    songs(tmp_path)
    path.write_text(path.read_text().replace("Pop", "Schlager"))
    with pytest.raises(UserError, match="not as a download left it"):
        songs(tmp_path)
    assert "Schlager" in path.read_text()


# MTG-Jamendo


def tar_of(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tagged_repository(archives: int = 3, each: int = 4) -> dict[str, bytes]:
    """Return files laid out as rkstgr/mtg-jamendo; track ids run through the archives."""
    lines = ["id\tartist_id\tduration\tgenres\tinstruments\tmoods"]
    repository: dict[str, bytes] = {}
    for archive in range(archives):
        members: dict[str, bytes | tarfile.TarInfo] = {}
        for track in range(each):
            id_ = str(1000 + 10 * archive + track)
            members[f"{archive}/{id_}.opus"] = noise(3000)
            lines.append(f"{id_}\tartist_7\t217.3\t['pop', 'rock']\t['piano']\t[]")
        repository[f"data/train/{archive}.tar"] = tar_of(members)
    repository["train.tsv"] = "\n".join(lines).encode()
    repository["valid.tsv"] = b"id\tgenres\tinstruments\tmoods\n5\t[]\t[]\t[]\n"
    repository["data/val/0.tar"] = tar_of({"5.opus": noise(100)})
    return repository


def tagged(data_dir: Path, max_tracks: int = 6, split: str = "train") -> Path:
    return mtg_jamendo.download("owner/name", split, max_tracks, data_dir, None)


def test_mtg_jamendo_writes_songs_and_tags(serve: Serve, tmp_path: Path) -> None:
    server = serve(tagged_repository())
    path = tagged(tmp_path)
    assert path == tmp_path / "metadata_mtg_jamendo_train.csv"
    read = manifest.read(path)
    assert [track.id for track in read] == ["1000", "1001", "1002", "1003", "1010", "1011"]
    assert all(track.audio_path and track.audio_path.is_file() for track in read)
    assert read[0].columns == {
        **{"language": "", "genre": "pop", "label": "pop", "genres": "pop;rock"},
        **{"instruments": "piano", "moods": "", "artist_id": "artist_7", "duration": "217.3"},
    }
    assert "data/train/2.tar" not in server.fetched()  # two archives hold enough
    assert not list((tmp_path / local.WORK_FOLDER).glob("*.tar"))


def test_more_tracks_continue_from_the_archives_that_are_there(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(tagged_repository())
    tagged(tmp_path, 3)
    assert server.fetched() == ["train.tsv", "data/train/0.tar"]
    tagged(tmp_path, 9)
    assert server.fetched()[2:] in (
        ["data/train/1.tar", "data/train/2.tar"],
        ["data/train/2.tar", "data/train/1.tar"],
    )
    assert len(manifest.read(tagged(tmp_path, 0))) == 12
    assert len(server.fetched()) == 4


def test_a_song_that_was_damaged_brings_its_archive_again(serve: Serve, tmp_path: Path) -> None:
    server = serve(tagged_repository())
    tagged(tmp_path)
    server.requests.clear()
    song = tmp_path / "audio/1011.opus"
    right = song.read_bytes()
    song.write_bytes(right[::-1])
    tagged(tmp_path)
    assert server.fetched() == ["data/train/1.tar"]
    assert song.read_bytes() == right


def test_archives_are_taken_in_the_order_of_their_numbers(serve: Serve, tmp_path: Path) -> None:
    serve(tagged_repository(archives=11, each=1))
    ids = [track.id for track in manifest.read(tagged(tmp_path, 11))]
    assert ids == [str(1000 + 10 * archive) for archive in range(11)]


def test_other_splits_have_their_own_manifest_and_unknown_ones_are_refused(
    serve: Serve, tmp_path: Path
) -> None:
    serve(tagged_repository())
    assert manifest.read(tagged(tmp_path, split="validation"))[0].columns["genre"] == ""
    with pytest.raises(UserError, match=r"no split 'test': choose one of train, validation"):
        tagged(tmp_path, split="test")


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        {"../1000.opus": b"x"},
        {"/tmp/1000.opus": b"x"},
        {"0/../../1000.opus": b"x"},
        {"1000.opus": link("1000.opus", "/etc/passwd")},
    ],
)
def test_archives_with_members_that_lead_outside_are_refused(
    serve: Serve, tmp_path: Path, members: dict[str, bytes | tarfile.TarInfo]
) -> None:
    serve({**tagged_repository(1), "data/train/0.tar": tar_of(members)})
    with pytest.raises(UserError, match="refused"):
        tagged(tmp_path / "data")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    assert not (tmp_path / "data/audio").exists()


def test_members_without_tags_are_left_out(serve: Serve, tmp_path: Path) -> None:
    archive = tar_of({"1000.opus": b"song", "9999.opus": b"untagged", "1001.sh": b"script"})
    serve({**tagged_repository(1), "data/train/0.tar": archive})
    assert [track.id for track in manifest.read(tagged(tmp_path))] == ["1000"]
    assert [path.name for path in (tmp_path / "audio").iterdir()] == ["1000.opus"]


# Kaggle


@pytest.fixture
def kaggle_server(
    isolated: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[dict[str, object]]:
    """Serve one data set, version 3, to the real kagglehub; `status` makes it fail."""
    from kagglesdk import kaggle_env

    state: dict[str, object] = {"status": 200, "archive": b"", "hash": "", "requests": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            state["requests"].append(self.path.rpartition("/")[2])  # type: ignore[attr-defined]
            if self.path.endswith("GetDataset"):
                body, kind = json.dumps({"currentVersionNumber": 3}).encode(), "application/json"
            else:
                body, kind = bytes(state["archive"]), "application/octet-stream"  # type: ignore[call-overload]
            self.send_response(int(state["status"]))  # type: ignore[call-overload]
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if state["hash"]:
                self.send_header("x-goog-hash", f"md5={state['hash']}")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, url)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "no_credentials"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "data"))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_kaggle_data_set_is_unpacked_and_read_as_a_folder(
    kaggle_server: dict[str, object], tmp_path: Path
) -> None:
    sound = tmp_path / "sound.wav"
    write_sound(sound)
    kaggle_server["archive"] = tar_of(
        {f"{genre}/{genre}.00000.wav": sound.read_bytes() for genre in ("blues", "jazz")}
    )
    path = kaggle.download("owner/gtzan", tmp_path / "data", genre_from_folder=True)
    read = manifest.read(path)
    assert [(track.id, track.columns["label"]) for track in read] == [
        ("blues/blues.00000", "blues"),
        ("jazz/jazz.00000", "jazz"),
    ]
    assert all(track.audio_path and track.audio_path.is_file() for track in read)
    record = files.read_json(local.record_path(path))
    assert (record["source"], record["dataset"], record["version"]) == (
        "kaggle",
        "owner/gtzan",
        "3",
    )
    kaggle.download("owner/gtzan", tmp_path / "data", genre_from_folder=True)
    assert kaggle_server["requests"] == ["GetDataset", "DownloadDataset", "GetDataset"]


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        tar_of({"../evil.wav": b"x"}),
        tar_of({"/tmp/../evil.wav": b"x", "a": link("a", "../..")}),
        tar_of({"out": link("out", "/etc")}),
        zip_of({"song.wav": noise(1000)}).replace(b"PK\x05\x06", b"PK\x05\x07"),
        zip_of({"../../evil.wav": noise(1000)}),
    ],
)
def test_an_archive_of_kaggle_that_is_damaged_or_leads_outside_is_refused(
    kaggle_server: dict[str, object], tmp_path: Path, archive: bytes
) -> None:
    kaggle_server["archive"] = archive
    with pytest.raises(UserError):
        kaggle.download("owner/name", tmp_path / "data", genre_from_folder=False)
    assert not list(tmp_path.glob("*.wav"))
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "no_credentials"}


def test_an_archive_of_kaggle_with_another_hash_is_refused(
    kaggle_server: dict[str, object], tmp_path: Path
) -> None:
    kaggle_server |= {"archive": tar_of({"x.wav": noise(100)}), "hash": "AAAAAAAAAAAAAAAAAAAAAA=="}
    with pytest.raises(UserError, match="its MD5 is wrong"):
        kaggle.download("owner/name", tmp_path / "data", genre_from_folder=False)
    assert not list(tmp_path.rglob("*.wav"))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"refuses access to owner/name \(401\): accept .*/kaggle.json"),
        (403, r"refuses access to owner/name \(403\)"),
        (404, r"has no data set 'owner/name'"),
        (500, r"Kaggle fails \(error 500\)"),
    ],
)
def test_what_kaggle_refuses_is_one_clear_sentence(
    kaggle_server: dict[str, object], tmp_path: Path, status: int, message: str
) -> None:
    kaggle_server["status"] = status
    with pytest.raises(UserError, match=message):
        kaggle.download("owner/name", tmp_path / "data", genre_from_folder=False)


def test_a_malformed_kaggle_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="write OWNER/NAME"):
        kaggle.download("https://kaggle.com/x", tmp_path, genre_from_folder=False)


# Folders


def write_sound(path: Path, tags: dict[str, str] | None = None) -> None:
    """Write a tenth of a second of noise in the format of the suffix, with Vorbis comments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, RANDOM.uniform(-0.1, 0.1, 2205).astype("float32"), 22050)
    if tags:
        audio = mutagen.File(path)
        audio.update(tags)
        audio.save()


def read_folder(path: Path, output: Path | None = None, genres: bool = False) -> manifest.Manifest:
    output = output or path / "metadata.csv"
    folder.manifest(path, output, genres)
    return manifest.read(output)


def test_a_folder_s_tracks_are_found_in_order_with_stable_unique_ids(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/10.flac", "a.ogg", "b/c/é ü.mp3", "same.wav", "same.FLAC"):
        write_sound(tmp_path / name)
    write_sound(tmp_path / ".hidden/x.wav")
    (tmp_path / "._a.ogg").write_bytes(b"resource fork")
    (tmp_path / "cover.jpg").write_bytes(b"jpg")
    read = read_folder(tmp_path)
    assert [track.id for track in read] == [
        *("a", "b/10", "b/2", "b/c/é ü", "same.FLAC", "same.wav"),
    ]
    paths = [row["audio_path"] for row in files.read_csv(read.path)]
    assert paths == ["a.ogg", "b/10.flac", "b/2.wav", "b/c/é ü.mp3", "same.FLAC", "same.wav"]
    assert read_folder(tmp_path) == read


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_vorbis_comments_are_read(tmp_path: Path, suffix: str) -> None:
    tags = {"title": "Été", "artist": "Zoé", "album": "A &amp; B", "language": "fr"}
    more = {"date": "2004-05", "tracknumber": "3/12", "genre": ["Chanson", "Jazz"]}
    write_sound(tmp_path / f"x.{suffix}", {**tags, **more, "LYRICS": "la\r\nla"})
    track = read_folder(tmp_path)[0]
    assert track.lyrics == "la\nla"
    assert track.columns == {
        **{**tags, "album": "A & B", "genre": "Chanson;Jazz", "label": "Chanson;Jazz"},
        **{"date": "2004-05", "track_number": "3", "duration": "0.10"},
    }


@pytest.mark.parametrize("suffix", ["mp3", "wav"])
def test_id3_tags_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    write_sound(path)
    audio = mutagen.File(path)
    audio.add_tags()
    frames = {"TIT2": "Song", "TPE1": "Band", "TALB": "Record", "TCON": "(17)", "TLAN": "eng"}
    for name, text in frames.items():
        audio.tags.add(getattr(mutagen.id3, name)(encoding=3, text=[text]))
    audio.tags.add(mutagen.id3.USLT(encoding=3, lang="eng", desc="", text="[00:01.00]one\ntwo"))
    audio.save()
    track = read_folder(tmp_path)[0]
    assert track.lyrics == "one\ntwo"
    assert float(track.columns["duration"]) == pytest.approx(0.1, abs=0.06)
    assert track.columns == {
        **{"title": "Song", "artist": "Band", "album": "Record", "language": "eng"},
        **{"genre": "Rock", "label": "Rock", "date": "", "track_number": ""},
        "duration": track.columns["duration"],
    }


def test_mp4_tags_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mutagen.mp4 import MP4FreeForm, MP4Tags

    held = MP4Tags()
    held["©nam"], held["©ART"], held["©gen"], held["©lyr"] = ["Song"], ["Band"], ["Jazz"], ["la"]
    held["----:com.apple.iTunes:LANGUAGE"] = [MP4FreeForm(b"de")]
    held["trkn"] = [(3, 12)]
    audio = SimpleNamespace(tags=held, info=SimpleNamespace(length=2.0, codec="mp4a.40.2"))
    monkeypatch.setattr(mutagen, "File", lambda file: audio)
    write_sound(tmp_path / "x.wav")
    found = read_folder(tmp_path)[0]
    assert found.lyrics == "la"
    assert {name: value for name, value in found.columns.items() if value} == {
        **{"title": "Song", "artist": "Band", "genre": "Jazz", "label": "Jazz"},
        **{"language": "de", "track_number": "3", "duration": "2.00"},
    }
    audio.info.codec = "drms"
    with pytest.raises(UserError, match="no audio file"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "lyrics"),
    [
        ("x.txt", "ligne é\n\nfin\n".encode(), "ligne é\n\nfin"),
        ("x.txt", "\ufeffmit Marke".encode(), "mit Marke"),
        ("x.txt", "sechzehn ü".encode("utf-16"), "sechzehn ü"),
        ("x.txt", "alt ü".encode("cp1252"), "alt ü"),
        (
            "x.lrc",
            b"[ar:Me]\n[00:12.00]one\n[00:15.30][01:00.1]two <00:16.00>words\n",
            "one\ntwo words",
        ),
        ("x.lrc", "[Chorus]\n[02:03]歌\0".encode(), "[Chorus]\n歌"),
        ("x.txt", b"x" * (tags.MAX_LYRICS + 1), "from the tag"),
    ],
)
def test_lyrics_beside_a_song_replace_those_in_it_without_time_stamps(
    tmp_path: Path, name: str, content: bytes, lyrics: str
) -> None:
    write_sound(tmp_path / "x.flac", {"lyrics": "from the tag"})
    (tmp_path / name).write_bytes(content)
    assert read_folder(tmp_path)[0].lyrics == lyrics


@pytest.mark.parametrize(
    "frames",
    [
        [mutagen.id3.TXXX(encoding=3, desc="LYRICS", text=["one\ntwo"])],
        [mutagen.id3.TXXX(encoding=3, desc="UNSYNCEDLYRICS", text=["one\ntwo"])],
        [mutagen.id3.TXXX(encoding=3, desc="Unsynchronised lyrics-eng", text=["one\ntwo"])],
        [
            mutagen.id3.USLT(encoding=3, lang="eng", desc="a", text="N/A"),
            mutagen.id3.USLT(encoding=3, lang="eng", desc="b", text="[00:01.00]one\ntwo"),
        ],
        [mutagen.id3.SYLT(encoding=3, lang="eng", type=1, text=[("one", 5), ("two", 900)])],
        [
            mutagen.id3.SYLT(encoding=3, lang="eng", type=5, text=[("Am", 5)]),
            mutagen.id3.SYLT(
                **{"encoding": 3, "lang": "eng", "type": 1, "desc": "sung"},
                text=[("o", 5), ("ne", 9), ("\ntwo", 900)],
            ),
        ],
    ],
)
def test_lyrics_are_found_wherever_id3_may_hold_them(tmp_path: Path, frames: list) -> None:
    write_sound(tmp_path / "x.mp3")
    audio = mutagen.File(tmp_path / "x.mp3")
    audio.add_tags()
    audio.tags.add(mutagen.id3.TXXX(encoding=3, desc="Lyrics URL", text=["https://example.org"]))
    for frame in frames:
        audio.tags.add(frame)
    audio.save()
    assert read_folder(tmp_path)[0].lyrics == "one\ntwo"


@pytest.mark.parametrize("name", ["UNSYNCEDLYRICS", "UNSYNCED LYRICS", "Lyrics", "LYRICS-XXX"])
def test_lyrics_are_found_by_any_spelling_of_vorbis_comments(tmp_path: Path, name: str) -> None:
    write_sound(tmp_path / "x.flac", {name: "one &amp; two"})
    assert read_folder(tmp_path)[0].lyrics == "one & two"


def test_the_info_of_wav_is_read(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav")
    values = {b"INAM": "Été".encode("cp1252"), b"IART": b"Zo\xc3\xa9", b"IGNR": b"Jazz\0"}
    values |= {b"ICRD": b"1999", b"ITRK": b"7"}
    chunks = b"".join(
        name + len(text).to_bytes(4, "little") + text + bytes(len(text) % 2)
        for name, text in values.items()
    )
    body = b"INFO" + chunks
    content = (tmp_path / "x.wav").read_bytes() + b"LIST" + len(body).to_bytes(4, "little") + body
    content = content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:]
    (tmp_path / "x.wav").write_bytes(content)
    columns = read_folder(tmp_path)[0].columns
    assert {name: value for name, value in columns.items() if value} == {
        **{"title": "Été", "artist": "Zoé", "genre": "Jazz", "label": "Jazz"},
        **{"date": "1999", "track_number": "7", "duration": "0.10"},
    }


def test_a_folder_is_read_through_links_and_every_file_once(tmp_path: Path) -> None:
    write_sound(tmp_path / "music/a/1.wav")
    write_sound(tmp_path / "elsewhere/b/2.wav")
    write_sound(tmp_path / "elsewhere/3.wav")
    (tmp_path / "music/0-again").symlink_to(tmp_path / "music/a")
    (tmp_path / "music/around").symlink_to(tmp_path)
    (tmp_path / "music/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/b/back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "music/a/also 1.wav").symlink_to(tmp_path / "music/a/1.wav")
    write_sound(tmp_path / "music/__MACOSX/x.wav")
    (tmp_path / "music/._1.wav").touch()
    for name in ("cover.JPG", "back.jpg", "a song. Live", "a/1.txt"):
        (tmp_path / "music" / name).write_text("words")
    read = read_folder(tmp_path / "music")
    assert [track.id for track in read] == ["a/1", "link/3", "link/b/2"]
    assert files.read_json(local.record_path(read.path))["passed_by"] == {
        **{".jpg": 2, "other files": 1, "AppleDouble files": 1, "hidden folders": 1},
        "links to folders that are listed already": 3,
        "links to files that are listed already": 1,
    }


def test_what_decodes_is_imported_whatever_its_kind_and_what_does_not_is_left_out(
    tmp_path: Path,
) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    write_sound(tmp_path / "x.wav")
    write_sound(tmp_path / "x.mp3")
    kinds = ["webm", "m4b", "mka", "caf", "w64", "mp2", "wma", "ac3", "mov"]
    for kind in kinds:
        options = ["-c:a", "aac"] if kind in ("m4b", "mov") else []
        options += ["-ar", "48000", "-f", "mp4" if kind == "m4b" else "matroska"] * (
            kind in ("m4b", "mka")
        )
        command_ = ["ffmpeg", "-v", "error", "-i", tmp_path / "x.wav", *options]
        subprocess.run([*command_, tmp_path / f"x.{kind}"], check=True)
    silent_film = ["-f", "lavfi", "-i", "color=s=16x16:d=0.2", "-f", "mp4", tmp_path / "film.mp4"]
    subprocess.run(["ffmpeg", "-v", "error", *silent_film], check=True)
    whole = (tmp_path / "x.m4b").read_bytes()
    (tmp_path / "never closed.m4a").write_bytes(whole.replace(b"moov", b"mooX"))
    tags_alone = b"ID3\4\0\0\0\0\0\4abcd" + bytes(100)
    header_alone = tags_alone[:14] + (tmp_path / "x.mp3").read_bytes()[:417]
    (tmp_path / "header.mp3").write_bytes(header_alone)
    (tmp_path / "x.mp3").unlink()
    (tmp_path / "tags.mp3").write_bytes(tags_alone)
    read = read_folder(tmp_path)
    assert [track.id for track in read] == sorted(f"x.{kind}" for kind in [*kinds, "wav"])
    left_out = files.read_csv(tmp_path / "metadata.skipped.csv")
    names = [Path(row["path"]).name for row in left_out]
    assert sorted(names) == ["film.mp4", "header.mp3", "never closed.m4a", "tags.mp3"]


def test_a_length_that_the_header_does_not_tell_stays_empty_or_is_counted(tmp_path: Path) -> None:
    write_sound(tmp_path / "piped.flac")
    forge_flac_length(tmp_path / "piped.flac", 0)
    write_sound(tmp_path / "whole.mp3")
    content = (tmp_path / "whole.mp3").read_bytes()
    (tmp_path / "bare.mp3").write_bytes(content[417 if b"Xing" in content[:417] else 0 :] * 3)
    read = read_folder(tmp_path)
    lengths = dict(zip(read.ids, read.column("duration", read.ids), strict=True))
    assert lengths["piped"] == ""
    assert 0.2 < float(lengths["bare"]) < 0.8


def test_names_that_differ_in_spaces_and_control_characters_alone_are_all_read(
    tmp_path: Path,
) -> None:
    names = ["a.wav", " a.wav", "a .wav", "b\tc.wav", "b\nc.wav", "b c.wav", f"{'d' * 200}.wav"]
    folders = tmp_path / "/".join("e" * 200 for _ in range(6))
    for name in names:
        write_sound(tmp_path / name)
    folders.mkdir(parents=True)
    shutil.copy(tmp_path / "a.wav", folders / "f.wav")
    read = read_folder(tmp_path)
    assert len(read) == 8
    assert all(track.audio_path.is_file() for track in read)
    assert len({track.audio_path for track in read}) == 8


def test_the_folder_names_the_genre_only_when_asked(tmp_path: Path) -> None:
    write_sound(tmp_path / "rock/a.flac")
    write_sound(tmp_path / "rock/b.flac", {"genre": "Metal"})
    write_sound(tmp_path / "c.flac")
    ids = ["c", "rock/a", "rock/b"]
    plain, asked = read_folder(tmp_path), read_folder(tmp_path, genres=True)
    assert plain.column("genre", ids) == ["", "", "Metal"]
    assert asked.column("genre", ids) == asked.column("label", ids) == ["", "rock", "Metal"]


def test_broken_files_are_counted_and_left_out(tmp_path: Path) -> None:
    write_sound(tmp_path / "good.wav")
    for suffix in ("mp3", "flac", "ogg", "wav", "m4a", "opus", "aiff", "wma", "ape", "wv"):
        (tmp_path / f"junk.{suffix}").write_bytes(noise(2000))
    (tmp_path / "empty.flac").touch()
    (tmp_path / "folder.mp3").mkdir()
    (tmp_path / "dangling.mp3").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mp3")
    (tmp_path / "loop").symlink_to(tmp_path)
    with open(os.fsencode(tmp_path) + b"/\xff.wav", "wb") as file:
        file.write((tmp_path / "good.wav").read_bytes())
    read = read_folder(tmp_path)
    assert [track.id for track in read] == ["good"]
    left_out = files.read_csv(tmp_path / "metadata.skipped.csv")
    kinds = {Path(row["path"]).name: row["kind"] for row in left_out}
    assert kinds.pop("empty.flac") == kinds["junk.mp3"] == kinds["junk.flac"] == "no audio"
    assert (kinds.pop("dangling.mp3"), kinds.pop("\\xff.wav")) == ("missing", "unreadable")
    assert len(kinds) == 10
    assert all(row["reason"] and row["remedy"] for row in left_out)
    assert files.read_json(local.record_path(read.path))["passed_by"] == {
        "links to folders that are listed already": 1,
        "pipes and devices": 1,
    }


@pytest.mark.parametrize("format_", ["AU", "RF64"])
def test_formats_that_have_no_tags_are_kept(tmp_path: Path, format_: str) -> None:
    path = tmp_path / f"blues.00000.{'au' if format_ == 'AU' else 'wav'}"
    soundfile.write(path, np.zeros(2205), 22050, format=format_)
    assert [track.id for track in read_folder(tmp_path)] == ["blues.00000"]


def test_paths_outside_the_manifest_s_folder_are_absolute(tmp_path: Path) -> None:
    write_sound(tmp_path / "music/x.wav")
    read = read_folder(tmp_path / "music", tmp_path / "lists/metadata.csv")
    assert read[0].audio_path == tmp_path / "music/x.wav"


def test_a_folder_that_is_missing_or_without_music_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        read_folder(tmp_path / "none")
    (tmp_path / "junk.mp3").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"no audio file that can be read \(1 left out\)"):
        read_folder(tmp_path)


# Playlists and tables


def test_a_playlist_s_files_are_read_in_its_order_however_they_are_named(tmp_path: Path) -> None:
    names = ["b.wav", "sub/Zoé 1.flac", "a.wav", "sub/c d.wav"]
    for name in names:
        write_sound(tmp_path / "music" / name)
    write_sound(tmp_path / "outside.wav")
    uri = (tmp_path / "music/sub/c d.wav").as_uri().replace("file://", "file://localhost")
    entries = [
        "#EXTM3U",
        "#EXTINF:1,B",
        "b.wav",
        "",
        "sub\\Zoé 1.flac",
        str(tmp_path / "music/a.wav"),
    ]
    entries += [uri, "b.wav", "../outside.wav", "gone.wav", "https://example.org/radio"]
    for suffix, encoding in (("m3u", "cp1252"), ("m3u8", "utf-8-sig")):
        path = tmp_path / f"music/list.{suffix}"
        path.write_bytes("\r\n".join(entries).encode(encoding))
        assert command.main(["m3u", str(path), "--output", str(tmp_path / "list.csv")]) == 0
        read = manifest.read(tmp_path / "list.csv")
        expected = [tmp_path / "music" / name for name in names] + [tmp_path / "outside.wav"]
        assert [track.audio_path.resolve() for track in read] == expected
        assert read.ids[:4] == ["b", "sub/Zoé 1", "a", "sub/c d"]
        skipped = files.read_csv(tmp_path / "list.skipped.csv")
        assert [row["kind"] for row in skipped] == ["missing", "stream"]


@pytest.mark.parametrize("name", ["gone.m3u", "empty.m3u"])
def test_a_playlist_that_is_missing_or_names_nothing_is_one_clear_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "empty.m3u").write_text("#EXTM3U\n")
    assert command.main(["m3u", str(tmp_path / name), "--output", str(tmp_path / "x.csv")]) == 1
    assert "vae_jax: " in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_a_table_s_columns_are_renamed_and_its_paths_stay_true(tmp_path: Path) -> None:
    write_sound(tmp_path / "music/My Song.wav")
    uri = (tmp_path / "music/My Song.wav").as_uri()
    table = tmp_path / "music/export.csv"
    table.write_text(
        "sep=;\nTrackId;Location;My Genre;BPM;lyrics\n"
        f'7;{uri};Rock;120;"one\n;two"\n8;My Song.wav;Jazz;;\n9;gs://bucket/x.mp3;;;\n'
    )
    columns = ["id=TrackId", "audio_path=Location", "genre=My Genre"]
    output = tmp_path / "out/metadata.csv"
    assert command.main(["csv", str(table), "--output", str(output), "--column", *columns]) == 0
    read = manifest.read(output)
    assert [track.audio_path for track in read] == [
        *[tmp_path / "music/My Song.wav"] * 2,
        "gs://bucket/x.mp3",
    ]
    assert read[0].lyrics == "one\n;two"
    assert read[0].columns == {"language": "", "genre": "Rock", "label": "Rock", "BPM": "120"}
    assert command.main(["csv", str(table), "--output", str(output), "--column", "id=Nope"]) == 1
    with pytest.raises(SystemExit):
        command.main(["csv", str(table), "--column", "id"])


# The command line


def test_the_command_prints_what_it_wrote(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(tagged_repository())
    line = f"mtg_jamendo --repo_id owner/name --split train --max_tracks 2 --data_dir {tmp_path}"
    assert command.main(line.split()) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path}/metadata_mtg_jamendo_train.csv\n"
    assert command.main(["folder", str(tmp_path / "audio"), "--output", str(tmp_path / "x.csv")])
    with open(tmp_path / "metadata_mtg_jamendo_train.csv") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_an_error_of_the_user_is_a_sentence_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["folder", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"vae_jax: there is no folder {tmp_path}/none.\n"


def test_help_is_quick_and_loads_no_source(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom vae_jax.download.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'huggingface_hub', 'kagglehub', 'mutagen', 'numpy', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert all(
        source in result.stdout for source in ("jamendolyrics", "mtg_jamendo", "kaggle", "m3u")
    )


def test_an_unknown_source_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["spotify"])
    assert "choose from 'jamendolyrics', 'mtg_jamendo'" in capsys.readouterr().err
