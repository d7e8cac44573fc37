"""The features stage: the manifest in, records, `failed.csv` and `warnings.csv` out."""

import os
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from absl import logging

from vae_jax.errors import UserError
from vae_jax.records import layout
from vae_jax.run import FAILED, WARNINGS, Run
from vae_jax.storage import files


def update(run: Run) -> bool:
    """Extract features into records; write `failed.csv` and `warnings.csv`."""
    from vae_jax.features import extract

    with _lock(run.records_dir):
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


def _lock(directory: Path) -> AbstractContextManager[None]:
    """Keep other runs from writing records; those of another user are read without."""
    if (directory / layout.INDEX).exists() and not os.access(directory, os.W_OK):
        return nullcontext()
    return files.lock(directory)


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind or 'other'}" for kind, count in kinds.most_common())
