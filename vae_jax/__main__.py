"""The console command: `vae-jax NAME ...` is `python -m vae_jax.NAME ...`.

`vae-jax run` is the main job, `python -m vae_jax.main`.
"""

import runpy
import sys

from vae_jax import __version__, console

COMMANDS = {
    "run": "find structure in a collection: features, training, clusters, plots",
    "compare": "put the results of runs side by side",
    "place": "place new tracks among the clusters of a run",
    "similar": "find what sounds like a track, and write playlists",
    "duplicates": "list tracks that are the same file or recording, or alike",
    "explore": "write a run as a page that one can look at, listen to and ask",
    "download": "fetch music, or list a folder of it, as a metadata.csv",
    "demo": "synthesise a small collection to try the commands on",
    "clean": "list runs, records and checkpoints, and delete what no run uses",
}
USAGE = "usage: vae-jax COMMAND [--FLAG=VALUE ...]"


def main() -> None:
    """Run the command that the first argument names."""
    console.set_up_streams()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print(_help())
    elif name == "--version":
        print(f"vae_jax {__version__}")
    elif name in COMMANDS:
        module = "vae_jax.main" if name == "run" else f"vae_jax.{name}"
        sys.argv[:2] = [f"vae-jax {name}"]
        runpy.run_module(module, run_name="__main__")
    else:
        sys.exit(f"vae_jax: there is no command {name!r}.\n{_help()}")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join([USAGE, "", *lines, "", "vae-jax COMMAND --help has each command's flags."])


if __name__ == "__main__":
    main()
