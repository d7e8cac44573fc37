"""MusiCNN's weights, from a package's file that is made here, and fetched by the real pip."""

import importlib.util
import os
import zipfile

import numpy as np
import pytest

from tests import tf_bundle
from tests.features.test_musicnn import made_up
from vae_jax.download import __main__ as command
from vae_jax.download import musicnn as source
from vae_jax.features import musicnn
from vae_jax.storage import files

OPTIMISER = ("beta1_power", "dense_1/kernel", *(f"conv2d/kernel/Adam{end}" for end in ("", "_1")))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Return the package's file, with a checkpoint of made-up weights."""
    variables = dict(made_up())
    for layer in ("conv2d_5", "conv2d_6", "conv2d_7"):  # as the original has them
        variables[f"{layer}/kernel"] = variables[f"{layer}/kernel"][:, :, None]
    variables |= {name: np.ones((2, 3), np.float32) for name in OPTIMISER}
    index, data = tf_bundle.write(variables)
    about = f"musicnn-{source.VERSION}.dist-info"
    contents = {
        "musicnn/MSD_musicnn/.index": index,
        "musicnn/MSD_musicnn/.data-00000-of-00001": data,
        f"{about}/LICENSE.md": "Permission to use is granted.",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: musicnn\nVersion: {source.VERSION}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    path = tmp_path_factory.mktemp("index") / source.WHEEL
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in contents.items():
            wheel.writestr(name, content)
    return path


@pytest.fixture
def pinned(package, monkeypatch):
    """Let that file and its weights pass for the published ones."""
    monkeypatch.setattr(source, "SHA256", files.sha256(package))
    monkeypatch.setitem(musicnn.DIGESTS, "MSD_musicnn", musicnn.digest(made_up()))


def run(folder, *flags):
    return command.main(["musicnn", f"--data_dir={folder}", *flags])


@pytest.mark.usefixtures("pinned")
def test_a_file_at_hand_gives_the_networks_weights_and_licence_alone(package, tmp_path, capsys):
    assert run(tmp_path / "data", f"--wheel={package}") == 0
    path = tmp_path / "data" / "MSD_musicnn.npz"
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert list(path.parent.iterdir()) == [path]
    found, expected = files.read_npz(path), made_up()
    assert found.keys() == expected.keys() | {"license", "source"}
    assert all((found[name] == array).all() for name, array in expected.items())
    assert str(found["license"]) == "Permission to use is granted."
    assert "musicnn 0.1.0" in str(found["source"])
    assert "model MSD_musicnn" in str(found["source"])
    weights = musicnn.load({"musicnn": "MSD_musicnn", "musicnn_dir": path.parent})
    assert musicnn.digest(weights) == musicnn.digest(expected)


@pytest.mark.usefixtures("pinned")
def test_weights_that_are_there_are_not_fetched_again_and_damaged_ones_are(package, tmp_path):
    assert run(tmp_path, f"--wheel={package}") == 0
    assert run(tmp_path, "--wheel=nowhere") == 0
    (tmp_path / "MSD_musicnn.npz").write_bytes(b"damaged")
    assert run(tmp_path, "--wheel=nowhere") == 1
    assert run(tmp_path, f"--wheel={package}") == 0
    musicnn.load({"musicnn": "MSD_musicnn", "musicnn_dir": tmp_path})


def test_another_file_is_refused_by_its_hash_before_it_is_opened(package, tmp_path, capsys):
    assert run(tmp_path, f"--wheel={package}") == 1
    said = capsys.readouterr().err
    assert f"{package} is damaged, or not {source.WHEEL} (its SHA-256 is " in said
    assert not list(tmp_path.iterdir())


@pytest.fixture
def pip(monkeypatch):
    """Return what tells pip to look for packages in a folder alone."""
    if not importlib.util.find_spec("pip"):
        pytest.skip("pip is not installed")

    def look_in(folder):
        for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", folder), ("CONFIG_FILE", os.devnull)):
            monkeypatch.setenv(f"PIP_{name}", str(value))

    return look_in


@pytest.mark.usefixtures("pinned")
def test_pip_fetches_it_and_leaves_nothing_else(package, tmp_path, pip):
    pip(package.parent)
    assert run(tmp_path / "data") == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["MSD_musicnn.npz"]


@pytest.mark.parametrize("is_there", [True, False])
def test_what_pip_cannot_fetch_or_finds_changed_ends_in_a_sentence(
    package, tmp_path, pip, capsys, is_there
):
    pip(package.parent if is_there else tmp_path)
    assert run(tmp_path / "data") == 1
    said = capsys.readouterr().err
    assert f"vae_jax: pip could not fetch {source.WHEEL} (" in said
    assert "give it as --wheel=FILE." in said
    assert said.count("vae_jax: ") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "data").exists()
