"""MusiCNN's weights (Pons and Serra 2019), from the package `musicnn` of the Python Package Index.

Nothing of the package is installed or executed, and TensorFlow is not needed: the weights are read
from a checkpoint inside the package's file, and written as plain arrays, without what the optimiser
kept and without the layer that names tags.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from absl import logging

from vae_jax.download import tf_checkpoint
from vae_jax.errors import UserError
from vae_jax.features import musicnn
from vae_jax.storage import files

VERSION = "0.1.0"
WHEEL = f"musicnn-{VERSION}-py3-none-any.whl"
SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
LICENSE = f"musicnn-{VERSION}.dist-info/LICENSE.md"
SOURCE = (
    f"musicnn {VERSION} (https://github.com/jordipons/musicnn), model {{model}}: J. Pons and "
    "X. Serra, musicnn: pre-trained convolutional neural networks for music audio tagging, 2019, "
    "arXiv:1909.06654"
)


def download(model: str, data_dir: Path, wheel: Path | None) -> Path:
    """Fetch a model's weights, unless they are there.

    Parameters
    ----------
    model
        `MSD_musicnn` or `MTT_musicnn`.
    data_dir
        The folder to write into.
    wheel
        The package's file, where it is on this machine already.

    Returns
    -------
    Path
        `MODEL.npz` with the weights by name, `license` and `source`.

    Raises
    ------
    UserError
        If the package cannot be fetched, or is not the one that is expected.
    """
    target = data_dir / f"{model}.npz"
    if _is_there(target, model):
        return target
    with tempfile.TemporaryDirectory(prefix="vae_jax-") as folder:
        weights, license_text = _read(wheel or _fetch(Path(folder)), model)
    files.write_npz(target, **weights, license=license_text, source=SOURCE.format(model=model))
    return target


def _is_there(target: Path, model: str) -> bool:
    try:
        musicnn.load({"musicnn": model, "musicnn_dir": target.parent})
    except UserError:
        return False
    return True


def _fetch(folder: Path) -> Path:
    """Let pip fetch the package's file, which no other source can replace, and not install it."""
    logging.info("musicnn: fetching %s (29 MB) with pip", WHEEL)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"musicnn=={VERSION} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", f"--dest={folder}", f"--requirement={wanted}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UserError(
            f"pip could not fetch {WHEEL} ({lines[-1] if lines else 'it says nothing'}): check the "
            "network and pip, or fetch that file from the Python Package Index elsewhere and give "
            "it as --wheel=FILE."
        )
    return folder / WHEEL


def _read(wheel: Path, model: str) -> tuple[musicnn.Weights, str]:
    """Return the weights, and the licence, of a package's file whose hash is the pinned one."""
    try:
        found = files.sha256(wheel)
    except OSError as error:
        raise UserError(f"cannot read --wheel={wheel}: {error.strerror}.") from error
    if found != SHA256:
        raise UserError(
            f"{wheel} is damaged, or not {WHEEL} (its SHA-256 is {found}, not {SHA256}): fetch it "
            "again."
        )
    with zipfile.ZipFile(wheel) as package:
        index = package.read(f"musicnn/{model}/.index")
        data = package.read(f"musicnn/{model}/.data-00000-of-00001")
        license_text = package.read(LICENSE).decode()
    shapes = musicnn.shapes()
    variables = tf_checkpoint.read(index, data, list(shapes))
    # The original's layers over time are two-dimensional, with a second axis that is all they see.
    return {name: variables[name].reshape(shape) for name, shape in shapes.items()}, license_text
