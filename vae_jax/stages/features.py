"""The features stage: the manifest in, records, `failed.csv` and `warnings.csv` out.

Where duplicates are to be dropped, they are found here, so that no later stage sees them.
"""

import os
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from absl import logging

from vae_jax.errors import UserError
from vae_jax.records import layout
from vae_jax.run import DROPPED, FAILED, FINGERPRINTS, WARNINGS, Run
from vae_jax.stages import up_to_date
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
    return drop_duplicates(run) or changed


def drop_duplicates(run: Run) -> bool:
    """List in `dropped.csv` the tracks that `config.duplicates` leaves out; say if that is new.

    What is the same is looked for by the standardised features, since nothing is trained yet.
    """
    path = run.outdir / DROPPED
    if run.config.duplicates == "keep":
        for stale in (path, up_to_date.marker(run.outdir, "duplicates")):
            stale.unlink(missing_ok=True)
        return False
    from vae_jax.collection import duplicates
    from vae_jax.embedding import baselines

    records = run.all_records

    def write() -> list[Path]:
        part = baselines.summaries(records, np.arange(len(records)))
        known = baselines.statistics(records, [part])
        points = baselines.raw(records, part, known, run.config.feature.lyrics_weight)
        rows = {id_: row for row, id_ in enumerate(run.manifest.ids)}
        tracks = [run.manifest[rows[id_]] for id_ in records.ids.tolist()]
        found = duplicates.among(tracks, points, run.outdir / FINGERPRINTS)
        left_out = duplicates.all_but_the_first(found)
        files.write_csv(path, ("id", "same_as", "kind", "similarity"), left_out)
        return [path]

    changed = up_to_date.unless_up_to_date(run, "duplicates", [records.fingerprint], write)
    if run.dropped:
        logging.info("features: %d duplicates are left out: see %s", len(run.dropped), path)
    return changed


def _lock(directory: Path) -> AbstractContextManager[None]:
    """Keep other runs from writing records; those of another user are read without."""
    if (directory / layout.INDEX).exists() and not os.access(directory, os.W_OK):
        return nullcontext()
    return files.lock(directory)


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind or 'other'}" for kind, count in kinds.most_common())
