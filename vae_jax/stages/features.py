"""The features stage: the manifest in, records, `failed.csv` and `warnings.csv` out."""

from absl import logging

from vae_jax.errors import UserError
from vae_jax.run import FAILED, WARNINGS, Run
from vae_jax.storage import files


def update(this: Run) -> bool:
    """Extract features into records; write `failed.csv` and `warnings.csv`."""
    from vae_jax.features import extract

    with files.lock(this.records_dir):
        try:
            changed, failures = extract.extract(
                this.manifest,
                this.config.feature.to_dict(),
                this.records_dir,
                lyrics=this.lyrics,
                beam_options=this.beam_options,
                store=this.records_store,
            )
        except extract.NothingRead as error:
            extract.write_failures(this.outdir / FAILED, error.failures)
            raise UserError(f"{error} {this.outdir / FAILED} lists them all.") from error
        odd = extract.write_warnings(this.outdir / WARNINGS, this.records_dir)
    extract.write_failures(this.outdir / FAILED, failures)
    kept = sum(failure.kept for failure in failures)
    for count, fate in (
        (len(failures) - kept, "failed and are left out"),
        (kept, "are kept without their audio or lyrics, which failed"),
    ):
        if count:
            logging.warning(
                "features: %d of %d tracks %s; %s says why",
                *(count, len(this.manifest), fate, this.outdir / FAILED),
            )
    if odd:
        logging.warning(
            "features: %d of %d tracks are used although they are damaged or odd; %s says how",
            *(odd, len(this.manifest), this.outdir / WARNINGS),
        )
    return changed
