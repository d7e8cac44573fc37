"""Says which flag or config key a user may mean by one that does not exist."""

import difflib
import re
from collections.abc import Iterable, Sequence

from vae_jax.config import KEYS, SECTIONS, unknown_key
from vae_jax.errors import UserError

_FLAG = re.compile(r"--?(?P<no>no)?(?P<name>[^=]+)(=.*)?", re.DOTALL)


def unknown_config_key(argv: Sequence[str]) -> UserError | None:
    """Return the error for the first `--config.KEY` that is not a key; None if all are."""
    for argument in argv[1:]:
        found = _FLAG.fullmatch(argument)
        name = found["name"].removeprefix("config.") if found else ""
        if found and name != found["name"] and name not in KEYS:
            return unknown_key(name)
    return None


def unknown_flag(name: str, flags: Iterable[str]) -> UserError:
    """Return the error for a flag that does not exist.

    `flags` are those that exist. A name that is close to a config key, or to its last word, is
    taken for that key.
    """
    meant = {key.rpartition(".")[2]: f"config.{key}" for key in reversed(KEYS)}
    meant |= {key: f"config.{key}" for key in KEYS}
    meant |= {f"config.{key}": f"config.{key}" for key in KEYS}
    meant |= {flag: flag for flag in flags if flag.partition(".")[0] not in (*SECTIONS, "config")}
    close = difflib.get_close_matches(name, meant, 1, cutoff=0.75)
    hint = f"did you mean --{meant[close[0]]}?" if close else "--help lists all."
    return UserError(f"--{name} is not a flag: {hint}")
