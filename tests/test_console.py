"""What reaches a terminal, and what happens where there is none."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_compare import rows
from vae_jax import console
from vae_jax.clustering import metrics_file

PROGRAM = "from vae_jax import process\ndef main(argv):\n    {}\nprocess.run_command(main)"


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a line of bash, in which `python` is this Python and any failing command counts."""
    command = f"set -o pipefail; {command.replace('python', shlex.quote(sys.executable))}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Björk\n山本\u3000a\xa0b", "Björk\n山本\u3000a\xa0b"),
        ("\x1b]0;evil\a\r\t\x9b31m", r"\x1b]0;evil\x07\r\t\x9b31m"),
        ("a\u202eb\u2028", r"a\u202eb\u2028"),
        ("می\u200cروم", "می\u200cروم"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_what_controls_a_terminal_is_shown_instead(text, expected):
    assert console.shown(text) == expected


def test_no_cell_of_a_table_that_is_compared_reaches_the_terminal_as_a_command(tmp_path):
    evil = "\x1b]0;evil\a\x9b2J"
    changed = [row | {"feature": evil, "method": f"{evil}{row['method']}"} for row in rows("a")]
    metrics_file.append(tmp_path / metrics_file.NAME, changed)
    done = shell("python -m vae_jax.compare .", tmp_path)
    assert done.returncode == 0, done.stderr
    assert rb"\x1b]0;evil\x07\x9b2J" in done.stdout
    assert not {0x1B, 0x07} & {*done.stdout, *done.stderr}


def test_log_lines_show_what_controls_a_terminal(tmp_path):
    program = PROGRAM.format("from absl import logging; logging.warning('%s', '\\x1b[31m')")
    done = shell(f"python -c {shlex.quote(program)}", tmp_path)
    assert rb"\x1b[31m" in done.stderr
    assert b"\x1b" not in done.stderr


def test_output_in_ascii_shows_other_characters_as_escapes(tmp_path):
    program = PROGRAM.format("print('Bj\\xf6rk \\u5c71')")
    done = shell(f"python -c {shlex.quote(program)}", tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, b"Bj\\xf6rk \\u5c71\n")


@pytest.mark.parametrize(
    "command",
    [
        "python -m vae_jax --help",
        "python -m vae_jax.main --help",
        "python -m vae_jax.main --config=mlp --print_config",
        "python -m vae_jax.compare .",
    ],
)
def test_a_reader_that_leaves_early_is_no_failure(tmp_path, command):
    metrics_file.append(tmp_path / metrics_file.NAME, rows("a"))
    done = shell(f"{command} > >(exec true); echo $?", tmp_path)
    expected = shell(f"{command} > /dev/null; echo $?", tmp_path)
    assert done.stdout == expected.stdout == b"0\n", done.stderr
    assert done.stderr == b""


def test_readers_of_both_streams_may_leave(tmp_path):
    said = "import time; from absl import logging; time.sleep(1)\n    "
    said += "[(print('x' * 100, flush=True), logging.warning('x' * 100)) for _ in range(1000)]"
    program = shlex.quote(PROGRAM.format(said))
    done = shell(f"python -c {program} 2>&1 | true; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stdout == b"0\n"


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing_and_no_file_receives_what_is_said(tmp_path, closed):
    said = "import os, sys; file = open('mine', 'wb'); file.write(b'a'); from absl import logging"
    said += "\n    logging.warning('heard'); print('said'); os.write(2, b'shouted'); file.close()"
    program = shlex.quote(PROGRAM.format(said))
    assert shell(f"python -c {program} {closed}", tmp_path).returncode == 0
    assert (tmp_path / "mine").read_bytes() == b"a"
