"""The features stage: the manifest in, records, descriptors and lists of failures out."""

from collections import Counter

from absl import logging

from vae_jax.errors import UserError
from vae_jax.run import DESCRIPTORS, FAILED, WARNINGS, Run
from vae_jax.storage import files


def update(run: Run) -> bool:
    """Extract features into records; write `failed.csv`, `warnings.csv`, `descriptors.csv`."""
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
        if run.config.feature.descriptors:
            extract.write_descriptors(run.outdir / DESCRIPTORS, run.records_dir)
        else:
            (run.outdir / DESCRIPTORS).unlink(missing_ok=True)
    extract.write_failures(run.outdir / FAILED, failures)
    for is_kept, fate in (
        (False, "failed and are left out"),
        (True, "are kept without their audio or lyrics, which failed"),
    ):
        kinds = Counter(failure.kind for failure in failures if failure.kept == is_kept)
        if kinds:
            logging.warning(
                "features: %d of %d tracks %s (%s); %s says why, and what to do",
                *(kinds.total(), len(run.manifest), fate, _listed(kinds), run.outdir / FAILED),
            )
    if odd:
        logging.warning(
            "features: tracks are used although they are damaged or odd (%s); %s says how",
            *(_listed(odd), run.outdir / WARNINGS),
        )
    return changed


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind or 'other'}" for kind, count in kinds.most_common())
