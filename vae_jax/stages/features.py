"""The features stage: the manifest in, records, `failed.csv` and `warnings.csv` out."""

from absl import logging

from vae_jax.errors import UserError
from vae_jax.run import FAILED, WARNINGS, Run
from vae_jax.storage import files


def update(run: Run) -> bool:
    """Extract features into records; write `failed.csv` and `warnings.csv`."""
    from vae_jax.features import extract

    with files.lock(run.records_dir):
        try:
            changed, failures = extract.extract(
                run.manifest,
                run.config.feature.to_dict(),
                run.records_dir,
                lyrics=run.lyrics,
                beam_options=run.beam_options,
                store=run.records_store,
            )
        except extract.NothingRead as error:
            extract.write_failures(run.outdir / FAILED, error.failures)
            raise UserError(f"{error} {run.outdir / FAILED} lists them all.") from error
        odd = extract.write_warnings(run.outdir / WARNINGS, run.records_dir)
    extract.write_failures(run.outdir / FAILED, failures)
    kept = sum(failure.kept for failure in failures)
    for count, fate in (
        (len(failures) - kept, "failed and are left out"),
        (kept, "are kept without their audio or lyrics, which failed"),
    ):
        if count:
            logging.warning(
                "features: %d of %d tracks %s; %s says why",
                *(count, len(run.manifest), fate, run.outdir / FAILED),
            )
    if odd:
        logging.warning(
            "features: %d of %d tracks are used although they are damaged or odd; %s says how",
            *(odd, len(run.manifest), run.outdir / WARNINGS),
        )
    return changed
