"""The command `vae-jax explore`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.explorer import runs

REPOSITORY = Path(__file__).parents[2]


def explore(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "vae_jax", "explore", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_page_is_written_beside_the_results_or_where_one_wants_it(tmp_path):
    results = runs.write(tmp_path, [0, 1] * 6)
    done = explore(str(results))
    assert done.returncode == 0, done.stderr
    assert f"written: {results}/map.html" in done.stdout
    elsewhere = tmp_path / "new" / "page.html"
    assert explore(str(results), f"--output={elsewhere}").returncode == 0
    assert elsewhere.stat().st_size > 50_000
    wrong = explore(str(tmp_path))
    assert wrong.returncode == 1
    assert "holds no results" in wrong.stderr
