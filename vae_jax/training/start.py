"""Which trained model the training of a run starts from: `config.train.start_from`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import logging

from vae_jax import config as config_lib
from vae_jax.errors import UserError
from vae_jax.run import KEPT, Run, checkpoints_in
from vae_jax.storage import files
from vae_jax.training import checkpoints

if TYPE_CHECKING:
    from vae_jax.training.model_spec import ModelSpec

PREVIOUS, SCRATCH = "previous", "scratch"


@dataclass(frozen=True)
class Start:
    """A trained model to start from.

    Attributes
    ----------
    directory, step
        Its checkpoint.
    """

    directory: Path
    step: int

    @property
    def seal(self) -> str:
        """The checkpoint's fingerprint."""
        return checkpoints.seal(self.directory, self.step)

    def params(self) -> Any:
        """Return its parameters, [S, ...]."""
        return checkpoints.restore_params(self.directory, self.step)

    def continued(self, described: "ModelSpec") -> "ModelSpec":
        """Return the spec of a model that sees tracks as this one does.

        With other means, deviations or axes of its input, what was learned would not fit.
        """
        from vae_jax.training.model_spec import ModelSpec

        before = ModelSpec.from_dict(checkpoints.read_metadata(self.directory, self.step))
        return replace(described, statistics=before.statistics, whitening=before.whitening)


def find(run: Run) -> dict[str, Start]:
    """Return what each trained model starts from; nothing for those that start from scratch.

    Raises
    ------
    UserError
        If the config names a model that does not fit.
    """
    wanted = run.config.train.start_from
    if wanted == SCRATCH or (wanted == PREVIOUS and not run.previous):
        return {}
    starts = {}
    for model, folder in _folders(run, wanted).items():
        try:
            start = Start(folder, checkpoints.best_step(folder))
            metadata = checkpoints.read_metadata(start.directory, start.step)
            reason = _misfit(run, model, metadata)
        except UserError as error:
            reason = str(error)
        if not reason:
            starts[model] = start
        elif wanted == PREVIOUS:
            logging.info("train: the %s starts from scratch: %s", model.upper(), reason)
        else:
            raise UserError(
                f"config.train.start_from={wanted} cannot start this model: {reason}; name "
                "another, or scratch."
            )
    return starts


def _folders(run: Run, wanted: str) -> dict[str, Path]:
    """Return the folders of checkpoints that are meant, by model."""
    if wanted != PREVIOUS:
        return {"vae": checkpoints_in(Path(wanted))}
    assert run.previous is not None
    kept = files.read_sealed_json(run.previous / KEPT)["checkpoints"]
    return {
        model: (run.outdir / kept[model]["directory"]).resolve()
        for model in run.trained
        if model in kept
    }


def _misfit(run: Run, model: str, metadata: Mapping[str, Any]) -> str:
    """Say why a trained model cannot be trained on; nothing if it can."""
    ours = run.model_config(model) | {"feature": config_lib.to_dict(run.config)["feature"]}
    theirs = config_lib.to_dict(config_lib.from_dict(metadata["config"]))
    for section, settings in (("feature", config_lib.shared_settings), ("model", dict)):
        now, then = settings(ours[section]), settings(theirs[section])
        for name, value in now.items():
            if value != then[name]:
                return f"config.{section}.{name} is {value!r} now and was {then[name]!r}"
    if ours["num_seeds"] != theirs["num_seeds"]:
        return f"config.num_seeds is {ours['num_seeds']} now and was {theirs['num_seeds']}"
    if metadata["lyrics"] != run.records.lyrics:
        return "lyrics are embedded anew with the new tracks"
    if metadata["classes"] != sorted({*run.conditions} - {""}):
        return f"the column {run.config.model.condition!r} has other values now"
    return ""
