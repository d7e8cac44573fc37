"""Runs the stages of a config.

vae-jax run --config=track --config.manifest=PATH/metadata.csv
    [--config.KEY=VALUE ...] [--outdir=DIR] [--stage=STAGE] [--checkpoint=DIR]
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from vae_jax import config as config_lib
from vae_jax import mistyped, presets, process, report
from vae_jax.errors import UserError
from vae_jax.parallel import processes
from vae_jax.run import checkpoints_in
from vae_jax.stages import runner

OUTDIR = flags.DEFINE_string("outdir", None, "Folder for results; default: results/<config.name>.")
STAGE = flags.DEFINE_enum("stage", "all", ["all", *runner.STAGES], "The stage to run.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "Embed with this trained model instead of training: a folder of checkpoints, or of a run's "
    "results. Its config is used unless --config names another; --config.manifest names the "
    "tracks.",
)
BEAM_OPTIONS = flags.DEFINE_string(
    "beam_options",
    "",
    "Options of the Beam pipeline of --config.feature.runner=beam, such as '--runner=FlinkRunner'.",
)
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the resolved config and stop.")
DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    None,
    "Join a job of several processes that Slurm, Open MPI, GKE or a Cloud TPU describes. By "
    "default the process joins if its environment names several.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of the job's first process, if no scheduler tells it."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the job.", 1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process's number, from 0.", 0)


def main(argv: Sequence[str]) -> None:
    """Resolve the config and run the stages."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}: options are written --name=value.")
    config = flags.FLAGS.config
    if config is None:
        raise UserError(f"no --config is given: name your own, or {', '.join(presets.names())}.")
    config_lib.validate(config)
    if PRINT_CONFIG.value:
        print(json.dumps(config_lib.to_dict(config), indent=2))
        return
    outdir = Path(OUTDIR.value or f"results/{config.name}")
    checkpoint = checkpoints_in(Path(CHECKPOINT.value)) if CHECKPOINT.value else None
    names = list(runner.STAGES) if STAGE.value == "all" else [STAGE.value]
    is_part = processes.is_described() if DISTRIBUTED.value is None else DISTRIBUTED.value
    place = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    if is_part or any(value is not None for value in place):
        processes.start(*place)
    if not processes.is_first():
        runner.help_the_first(config, outdir, names, checkpoint)
        return
    done = runner.run_stages(config, outdir, names, checkpoint, BEAM_OPTIONS.value)
    print(report.report(done))


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Define --config and parse the command line; whatever is wrong with it is a `UserError`."""
    argv = list(argv)
    name = _define_config(argv)
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        raise mistyped.unknown_flag(error.flagname, flags.FLAGS) from error
    except flags.Error:
        raise
    except (Exception, SystemExit) as error:  # a config file is a program: it can end in any way
        if process.asks_for_help():
            raise
        if unknown := mistyped.unknown_config_key(argv):
            raise unknown from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{name}, or what the command line sets in it, fails ({reason})."
        ) from error


def _define_config(argv: list[str]) -> str:
    """Define --config: a file, or the config inside --checkpoint where no file is given.

    A preset's name in `argv` becomes its file. Returns the config's name, for messages.
    """
    given = flags.FlagValues()
    for name in ("config", "checkpoint"):
        flags.DEFINE_string(name, None, "", flag_values=given)
    given(argv, known_only=True)
    if given.checkpoint and not given.config:
        from vae_jax.training import checkpoints

        directory = checkpoints_in(Path(given.checkpoint))
        metadata = checkpoints.read_metadata(directory, checkpoints.best_step(directory))
        config_flags.DEFINE_config_dict("config", config_lib.from_elsewhere(metadata["config"]))
        return f"the config in {directory}"
    config_flags.DEFINE_config_file("config", None, "A preset, such as track, or a config file.")
    if not given.config:
        return "the config"
    path = presets.resolve(given.config)
    path_flags = {given.config: path}  # as in --config track
    path_flags |= {f"{dashes}config={given.config}": f"--config={path}" for dashes in ("-", "--")}
    argv[:] = [path_flags.get(argument, argument) for argument in argv]
    return f"the config {path}"


if __name__ == "__main__":
    process.run_command(main, parse_flags)
