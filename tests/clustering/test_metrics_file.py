"""The table of metrics, to which every run appends."""

from pathlib import Path

import pytest

from vae_jax.clustering import metrics_file
from vae_jax.errors import UserError


def row(run_id: str, **columns: object) -> dict[str, object]:
    return {"run_id": run_id, "time": "2030-01-01", "method": "vae", "seed": 0, **columns}


def test_rows_of_earlier_runs_are_kept_and_those_of_the_same_run_replaced(tmp_path: Path) -> None:
    path = tmp_path / metrics_file.NAME
    metrics_file.append(path, [row("a", ami=0.1), row("a", ami=0.2)])
    metrics_file.append(path, [row("b", ami=0.3)])
    metrics_file.append(path, [row("a", ami=0.4)])
    rows = metrics_file.read(path)
    assert [(r["run_id"], r["ami"]) for r in rows] == [("b", "0.3"), ("a", "0.4")]


def test_columns_of_another_version_are_kept(tmp_path: Path) -> None:
    path = tmp_path / metrics_file.NAME
    metrics_file.append(path, [row("old", gone="x, y", ami=0.1)])
    metrics_file.append(path, [row("new", ami=None, added=1)])
    old, new = metrics_file.read(path)
    assert (old["gone"], old["ami"], old["added"]) == ("x, y", "0.1", "")
    assert (new["gone"], new["ami"], new["added"]) == ("", "", "1")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00binary",
        b"no,such,columns\n1,2,3\n",
        b"run_id,time,method,seed\na,2030,vae\n",
        b"run_id,time,method,seed\na,2030,vae,0,0\n",
        b"run_id,time,method,seed\n,2030,vae,0\n",
        b"run_id,time,method,seed\na,2030,vae,0\n\0\0\0\0\n",
    ],
)
def test_a_damaged_table_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / metrics_file.NAME
    path.write_bytes(content)
    with pytest.raises(UserError, match=metrics_file.NAME):
        metrics_file.append(path, [row("a")])
    assert path.read_bytes() == content


def test_a_missing_table_says_which_stage_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run --stage=cluster first"):
        metrics_file.read(tmp_path / metrics_file.NAME)
