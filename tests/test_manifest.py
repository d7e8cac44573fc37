import contextlib
import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vae_jax import manifest
from vae_jax.errors import UserError


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
