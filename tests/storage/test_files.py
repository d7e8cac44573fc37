import os
import subprocess
import sys

import numpy as np
import pytest

from vae_jax.errors import UserError
from vae_jax.storage import files


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted_write():
        with files.atomic_write(path) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted_write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_written_files_have_the_permissions_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "x.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640


def test_writing_never_touches_the_umask_under_which_other_threads_write(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", None)
    files.write_json(tmp_path / "x.json", {})
    assert not (tmp_path / "x.json").stat().st_mode & 0o111


def test_a_full_disk_is_a_user_error_that_names_the_file(tmp_path):
    program = f"""
import resource, signal
from vae_jax.storage import files
from vae_jax.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with files.atomic_write({str(tmp_path / "big")!r}) as file:
        file.write(bytes(100_000))
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith(f"cannot write {tmp_path / 'big'}: ")
    assert os.listdir(tmp_path) == []


def test_arrays_survive_npz(tmp_path):
    ids, latents = np.array(["a", "ü"]), np.eye(2, dtype=np.float32)
    files.write_npz(tmp_path / "x.npz", ids=ids, latents=latents)
    read = files.read_npz(tmp_path / "x.npz")
    assert (read["ids"] == ids).all()
    assert read["latents"].dtype == np.float32


def test_objects_are_never_written_to_npz(tmp_path):
    with pytest.raises(TypeError, match="pickle"):
        files.write_npz(tmp_path / "x.npz", ids=np.array([{}]))


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_an_npz_that_holds_a_program_is_refused_and_does_not_run_it(tmp_path):
    np.savez(tmp_path / "x.npz", latents=np.array([Hostile(tmp_path / "ran")]), allow_pickle=True)
    with pytest.raises(UserError, match=r"x\.npz is damaged"):
        files.read_npz(tmp_path / "x.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[::-1]])
def test_a_damaged_npz_is_a_user_error_that_names_it(tmp_path, damage):
    path = tmp_path / "x.npz"
    files.write_npz(path, latents=np.ones(100))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"x\.npz is damaged"):
        files.read_npz(path)


def test_csv_cells_with_commas_quotes_and_line_breaks_survive(tmp_path):
    row = {"id": 'a,"b"\nc', "reason": "ü"}
    files.write_csv(tmp_path / "x.csv", ("id", "reason", "empty"), [row])
    assert files.read_csv(tmp_path / "x.csv") == [row | {"empty": ""}]


def test_fingerprints_depend_on_values_and_not_on_the_order_of_keys():
    assert files.fingerprint({"a": 1, "b": [2]}) == files.fingerprint({"b": [2], "a": 1})
    assert files.fingerprint({"a": 1}) != files.fingerprint({"a": 1.5})
    assert files.fingerprint("fixed for ever") == "4c0582da0c9121d7"


def test_a_locked_folder_makes_the_second_run_wait(tmp_path):
    program = f"""
from vae_jax.storage import files
print("started", flush=True)
with files.lock({str(tmp_path)!r}):
    print("entered", flush=True)
"""
    with files.lock(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "started\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=0.5)
    assert other.stdout.read() == "entered\n"
    assert other.wait(timeout=10) == 0


def test_only_what_a_killed_run_was_writing_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale = f".vae_jax-{ended.pid}-0123456789abcdef.tmp"
    kept = {
        *(".tmp-0123456789abcdef", ".tmp-mine", ".vae_jax-1-notes.tmp", f"{stale}.txt"),
        f".vae_jax-{os.getppid()}-0123456789abcdef.tmp",  # of a process that is at work
    }
    for folder in (tmp_path, tmp_path / "history" / "001", tmp_path / "other"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (stale, *kept):
            (folder / name).touch()
    with files.lock(tmp_path, "history/*", "missing"):
        assert {path.name for path in tmp_path.glob(".*")} == kept | {".lock"}
    assert {path.name for path in (tmp_path / "history" / "001").iterdir()} == kept
    assert (tmp_path / "other" / stale).exists()
    with files.atomic_write(tmp_path / "x"):
        (written,) = tmp_path.glob(f".vae_jax-{os.getpid()}-*.tmp")
    assert not written.exists()
