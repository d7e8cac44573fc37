"""Runs the stages of a config.

python -m vae_jax.main --config=configs/mlp.py --config.manifest=PATH/metadata.csv
    [--config.KEY=VALUE ...] [--outdir=DIR] [--stage=STAGE] [--checkpoint=DIR]
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from absl import app, flags, logging
from ml_collections import config_flags

from vae_jax import config as config_lib
from vae_jax import console, report, stages
from vae_jax.errors import Preempted, UserError

OUTDIR = flags.DEFINE_string("outdir", None, "Folder for results; default: results/<config.name>.")
STAGE = flags.DEFINE_enum("stage", "all", ["all", *stages.STAGES], "The stage to run.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "Folder of checkpoints to embed with, instead of training. Its config is used, unless "
    "--config names another; --config.manifest names the tracks.",
)
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the resolved config and stop.")
DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")
EXIT_PREEMPTED = os.EX_TEMPFAIL  # the same command continues


def main(argv: Sequence[str]) -> None:
    """Resolve the config and run the stages."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}: options are written --name=value.")
    config = flags.FLAGS.config
    if config is None:
        raise UserError("no --config is given: try --config=configs/demo.py.")
    config_lib.validate(config)
    if PRINT_CONFIG.value:
        print(json.dumps(config_lib.to_dict(config), indent=2))
        return
    outdir = Path(OUTDIR.value or f"results/{config.name}")
    checkpoint = Path(CHECKPOINT.value) if CHECKPOINT.value else None
    names = list(stages.STAGES) if STAGE.value == "all" else [STAGE.value]
    done = stages.run(config, outdir, names, checkpoint)
    print(report.report(outdir, done.folders()))


def define_config(argv: Sequence[str]) -> None:
    """Define --config: a file, or the config inside --checkpoint where no file is given."""
    given = flags.FlagValues()
    for name in ("config", "checkpoint"):
        flags.DEFINE_string(name, None, "", flag_values=given)
    given([argv[0], *argv[1:]], known_only=True)
    path = (given.config or "").split(":")[0]
    if path and not Path(path).is_file():
        raise UserError(f"--config={path} is not a file: name one of configs/*.py, or your own.")
    if given.checkpoint and not given.config:
        from vae_jax import checkpoints

        directory = Path(given.checkpoint)
        metadata = checkpoints.read_metadata(directory, checkpoints.best_step(directory))
        config_flags.DEFINE_config_dict("config", config_lib.from_dict(metadata["config"]))
    else:
        config_flags.DEFINE_config_file("config", None, "Config file, such as configs/mlp.py.")


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse the command line; whatever is wrong with it is a `UserError`."""
    try:
        define_config(argv)
        return flags.FLAGS(argv)
    except UserError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from error


def run() -> None:
    """Run `main` under absl; print what a user can mend as one sentence."""
    console.set_up_logging()
    signal.signal(signal.SIGTERM, _stop)
    try:
        app.run(main, flags_parser=lambda argv: parse_flags(argv))
    except UserError as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"vae_jax: {error}")
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(f"vae_jax: {error.strerror or error}{where}; run again when that is mended.")
    except Preempted as error:
        logging.warning("%s", error)
        sys.exit(EXIT_PREEMPTED)
    except KeyboardInterrupt:
        sys.exit("vae_jax: interrupted; the same command continues.")


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once: whatever is not finished is redone. Training saves its state instead."""
    raise Preempted("stopped; the same command continues.")


if __name__ == "__main__":
    run()
