import contextlib
import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vae_jax import manifest
from vae_jax.errors import UserError
from vae_jax.storage import files


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "metadata.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_columns_beyond_the_known_ones_are_kept(tmp_path):
    path = write(tmp_path, "id,audio_path,artist,label\na,a.wav,Ann , rock\nb,b.wav,,\n")
    read = manifest.read(path)
    assert [track.id for track in read] == ["a", "b"]
    assert read.column("artist", ["b", "a"]) == ["", "Ann"]
    assert read.column("label", ["a"]) == ["rock"]
    assert read.column("no such column", ["a"]) == [""]


@pytest.mark.parametrize("encode", [str.encode, lambda text: text.encode("utf-8-sig")])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_marks_and_line_ends_do_not_matter(tmp_path, encode, newline):
    text = newline.join(["id,lyrics", 'ä,"one', 'two"', "b,", ""])
    read = manifest.read(write(tmp_path, encode(text)))
    assert [track.id for track in read] == ["ä", "b"]
    assert read[0].lyrics.split() == ["one", "two"]


def test_very_long_lyrics_are_read(tmp_path):
    lyrics = "la " * 1_000_000
    read = manifest.read(write(tmp_path, f"id,lyrics\na,{lyrics}\n"))
    assert read[0].lyrics == lyrics


def test_audio_paths_are_absolute_or_beside_the_manifest_or_in_the_current_directory(
    tmp_path, monkeypatch
):
    folder, elsewhere = tmp_path / "music", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "beside.wav").touch()
    (elsewhere / "current.wav").touch()
    monkeypatch.chdir(elsewhere)
    rows = f"a,{elsewhere / 'x.wav'}\nb,beside.wav\nc,current.wav\nd,missing.wav\ne,\n"
    read = manifest.read(write(folder, "id,audio_path\n" + rows))
    assert [track.audio_path for track in read] == [
        elsewhere / "x.wav",
        folder / "beside.wav",
        Path("current.wav"),
        folder / "missing.wav",
        None,
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("id,label\n", "has no rows"),
        ("name,label\na,b\n", "no column 'id'"),
        ("id,label\na,x\n,y\n", "line 3: the id is empty"),
        ('id,lyrics\na,"x\ny"\nb,\na,\n', "line 5: the id 'a' is already used in line 3"),
        ("id,label\na,x,y\n", "line 2: 3 cells, but the header names 2"),
        ('id,label\na,"x"y\n', "line 2: not well-formed CSV"),
        ('id,label\na,"never closed\n', "not well-formed CSV"),
        ("id,label,label\na,x,y\n", "names the column 'label' twice"),
        (b"id,label\na,\xff\n", "not UTF-8"),
        ("id,label\na\0b,x\n", "NUL"),
    ],
)
def test_a_bad_manifest_is_one_sentence_that_names_the_row(tmp_path, content, expected):
    path = write(tmp_path, content)
    with pytest.raises(UserError) as error:
        manifest.read(path)
    assert expected in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "header",
    ["id;label;lyrics", "id\tlabel\tlyrics", '"id";"label";"lyrics"', "\nsep=;\nid;label;lyrics"],
)
def test_semicolons_and_tabs_separate_cells_as_commas_do(tmp_path, header):
    separator = "\t" if "\t" in header else ";"
    row = separator.join(["a", "rock, pop", '"one; two\tthree"'])
    path = write(tmp_path, f"{header}\n{row}\n")
    read = manifest.read(path)
    assert read.column("label", ["a"]) == ["rock, pop"]
    assert read[0].lyrics == "one; two\tthree"
    path.write_text(f"{path.read_text()}b{separator}x\n")
    line = header.count("\n") + 3
    with pytest.raises(UserError, match=f"line {line}: 2 cells.*quote cells that hold (semi|tabs)"):
        manifest.read(path)


def test_columns_without_a_name_are_ignored(tmp_path):
    read = manifest.read(write(tmp_path, ",id,label,,\n0,a,rock,,\n1,b,pop,,x\n"))
    assert list(read.columns) == ["label"]
    assert read.column("label", ["a", "b"]) == ["rock", "pop"]


def test_a_missing_required_column_is_named(tmp_path):
    path = write(tmp_path, "id\na\n")
    with pytest.raises(UserError, match="no column 'audio_path'"):
        manifest.read(path, requires=("audio_path",))


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_an_unreadable_manifest_is_a_user_error(tmp_path, name):
    with pytest.raises(UserError, match=r"config\.manifest"):
        manifest.read(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    ["My Song.mp3", " lead.mp3", "trail.mp3 ", "100% é #1?.mp3", "a\nb\tc.mp3", "Song: One.mp3"]
    + [unicodedata.normalize(form, "Zoé Ångström.mp3") for form in ("NFC", "NFD")],
)
def test_a_file_is_found_by_any_spelling_of_its_name(tmp_path, name):
    audio = tmp_path / "music" / name
    audio.parent.mkdir()
    audio.touch()
    uri = audio.absolute().as_uri()
    spellings = [
        *(f"music/{name}", str(audio), uri, uri.replace("file://", "file://localhost")),
        *(uri.replace("file://", "file:"), f"file://{audio}"),
        *(unicodedata.normalize(form, f"music/{name}") for form in ("NFC", "NFD")),
    ]
    if name == name.strip():
        spellings += [f" music/{name}", f"music/{name} "]
    rows = [{"id": f"{row}", "audio_path": text} for row, text in enumerate(spellings)]
    files.write_csv(tmp_path / "metadata.csv", ("id", "audio_path"), rows)
    read = manifest.read(tmp_path / "metadata.csv")
    assert [track.audio_path for track in read] == [audio] * len(spellings)


def test_of_two_files_whose_names_differ_in_spaces_alone_the_one_that_is_named_is_taken(tmp_path):
    for name in ("a.mp3", " a.mp3"):
        (tmp_path / name).touch()
    read = manifest.read(write(tmp_path, "id,audio_path\na,a.mp3\nb, a.mp3\nc,  a.mp3\nd,  \n"))
    names = [track.audio_path and track.audio_path.name for track in read]
    assert names == ["a.mp3", " a.mp3", "a.mp3", None]


def test_a_name_that_no_file_system_allows_is_a_missing_file(tmp_path):
    read = manifest.read(write(tmp_path, f"id,audio_path\na,{'x' * 5000}\n"))
    assert read[0].audio_path == tmp_path / ("x" * 5000)


@pytest.mark.parametrize(
    "content",
    ["id,label,\na,x\n", "id,label,,\na,x,\n", "id,label\na,x,,\n", "id;label;\na;x\n"],
)
def test_commas_too_many_at_the_ends_of_lines_do_not_matter(tmp_path, content):
    read = manifest.read(write(tmp_path, content))
    assert [track.columns for track in read] == [{"label": "x"}]


def test_a_file_without_ids_is_refused_with_its_columns_by_their_names(tmp_path):
    with pytest.raises(UserError, match=r"it has 'TrackId', 'Name'.*--column id=NAME"):
        manifest.read(write(tmp_path, "TrackId;Name\na;x\n"))


def test_columns_are_renamed(tmp_path):
    path = write(tmp_path, "TrackId;id;Genre\na;7;rock\n")
    with pytest.raises(UserError, match="names the column 'id' twice"):
        manifest.read(path, renamed={"TrackId": "id"})
    path = write(tmp_path, "TrackId;Genre\na;rock\n")
    read = manifest.read(path, renamed={"TrackId": "id", "Genre": "genre"})
    assert (list(read.ids), read[0].columns) == (["a"], {"genre": "rock"})
    with pytest.raises(UserError, match="no column 'Nope'"):
        manifest.read(path, renamed={"Nope": "id"})


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
def test_any_cells_survive_the_round_trip_through_csv(tmp_path, rows):
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "label", "lyrics"])
    writer.writerows([f"{i}", label, lyrics] for i, (label, lyrics) in enumerate(rows))
    read = manifest.read(write(tmp_path, text.getvalue()))
    assert [track.lyrics for track in read] == [lyrics for _, lyrics in rows]
    ids = [str(i) for i in range(len(rows))]
    assert read.column("label", ids) == [label.strip() for label, _ in rows]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_are_read_or_refused_in_a_sentence(tmp_path, content):
    path = write(tmp_path, b"id,label\n" + content)
    with contextlib.suppress(UserError):
        assert all(track.id for track in manifest.read(path))
