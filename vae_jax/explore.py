"""Writes a run as one page, map.html, that one can look at, listen to and ask.

vae-jax explore RUN [--output=FILE.html]

RUN is the results folder of a run. The page needs no network: it opens by double click, and plays
the tracks that lie where they lay when it was written.
"""

from collections.abc import Sequence

from absl import flags

from vae_jax import api, process
from vae_jax.errors import UserError


def main(argv: Sequence[str]) -> None:
    """Write the page, and say where it is."""
    if len(argv) != 2:
        raise UserError("name one results folder: vae-jax explore results/track.")
    given, run = flags.FLAGS, api.load(argv[1])
    page = run.explore(given.output)
    size = page.path.stat().st_size / 1e6
    print(f"written: {page.path} ({size:.1f} MB; open it in a browser)")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "The page; RUN/map.html if it is not given.")
    process.run_command(main)
