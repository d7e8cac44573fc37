"""The configs that come with the package, found by name from any folder."""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from vae_jax.errors import UserError


def names() -> list[str]:
    """Return the presets' names, such as "track"."""
    return sorted(path.stem for path in _folder().glob("*.py") if path.stem != "__init__")


def resolve(config: str) -> str:
    """Return a config file, with its variant, for what a user writes as --config.

    Parameters
    ----------
    config
        A file, or a preset's name (also as configs/NAME.py), each perhaps with `:variant`.

    Raises
    ------
    UserError
        If there is neither such a file nor such a preset.
    """
    name, colon, variant = config.partition(":")
    path = Path(name)
    is_name = name == path.stem or path == Path("configs", f"{path.stem}.py")
    preset = _folder() / f"{path.stem}.py"
    if not path.is_file() and is_name and path.stem in names():
        path = preset
    if not path.is_file():
        raise UserError(
            f"--config={config} is neither a file nor a preset: name your own file, or one of "
            f"{', '.join(names())}."
        )
    return f"{path}{colon}{variant}"


def load(config: str) -> ConfigDict:
    """Return the config of a file or a preset, with its variant (see `resolve`)."""
    path, colon, variant = resolve(config).partition(":")
    module = runpy.run_path(path)
    return module["get_config"](*([variant] if colon else []))


def _folder() -> Path:
    """Return the folder of presets: inside the package where it is installed, else beside it."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
