"""Writes a run as one page, map.html, that one can look at, listen to and ask.

vae-jax explore RUN [--output=FILE.html] [--embed_audio=SECONDS] [--parquet=FILE.parquet]
vae-jax explore RUN --serve [--port=8765]

RUN is the results folder of a run. The page needs no network: it opens by double click, and plays
the tracks that lie where they lay when it was written. With --embed_audio it holds previews itself
and can be sent. --serve shows the same page at an address of this machine, with audio from wherever
it lies. --parquet also writes the run for embedding-atlas, another viewer.
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
    if given.serve:
        from vae_jax.explorer import server

        server.serve(run, given.host, given.port)
        return
    page = run.explore(given.output, given.embed_audio)
    size = page.path.stat().st_size / 1e6
    print(f"written: {page.path} ({size:.1f} MB; open it in a browser)")
    if given.parquet:
        from vae_jax.explorer import atlas

        count = atlas.write(given.parquet, run)
        print(f"written: {given.parquet} ({count} tracks)")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "The page; RUN/map.html if it is not given.")
    flags.DEFINE_float("embed_audio", 0.0, "Seconds of audio of each track inside the page.", 0.0)
    flags.DEFINE_string("parquet", None, "Also write this file, which embedding-atlas shows.")
    flags.DEFINE_bool("serve", False, "Serve the page instead of writing it.")
    flags.DEFINE_string("host", "127.0.0.1", "With --serve: the address; others need the token.")
    flags.DEFINE_integer("port", 8765, "With --serve: the port; 0 takes a free one.", 0, 65535)
    process.run_command(main)
