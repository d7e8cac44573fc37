"""How to install what an extra of `setup.py` needs."""

from importlib import metadata
from pathlib import Path


def command(extra: str) -> str:
    """Return the command that installs an extra.

    It names the clone, or else the packages themselves: no package index has one of our name, and
    anybody could register it.
    """
    clone = Path(__file__).parents[1]
    if (clone / "setup.py").exists():
        return f"pip install '{clone}[{extra}]'"
    needed = [line.replace("'", '"').partition(";") for line in metadata.requires("vae_jax") or ()]
    names = [name.strip() for name, _, condition in needed if f'"{extra}"' in condition]
    return f"pip install {' '.join(map(repr, names))}"
