"""The last part of the cluster stage: clusters in, `clusters.json` and `clusters.md` out.

It has a marker of its own, so that a name that a person gives does not cluster anew.
"""

from pathlib import Path

from vae_jax import config as config_lib
from vae_jax.reasons import explain, page
from vae_jax.run import CLUSTER_NAMES, CLUSTERS, DESCRIPTORS, REASONS, REASONS_PAGE, Run
from vae_jax.stages.up_to_date import hashes, unless_up_to_date
from vae_jax.storage import files


def update(run: Run) -> bool:
    """Explain the clusters, unless that is up to date."""
    inputs = [run.outdir / CLUSTERS, *run.embeddings()[:1]]
    optional = [run.outdir / DESCRIPTORS, run.outdir / CLUSTER_NAMES]
    columns = [*explain.label_columns(run), "title", "lyrics"]
    made_from = [
        hashes(inputs, "cluster"),
        [files.sha256(path) if path.exists() else None for path in optional],
        [run.config.seed, config_lib.to_dict(run.config)["feature"]["name"]],
        run.config.feature.descriptors,
        [[name, run.manifest.column(name, run.manifest.ids)] for name in columns],
    ]
    return unless_up_to_date(run, "reasons", made_from, lambda: _write(run))


def _write(run: Run) -> list[Path]:
    explained = explain.explain(run)
    files.write_json(run.outdir / REASONS, explained)
    shown = [id_ for one in explained["methods"]["vae"] for id_ in (*one["typical"], *one["edge"])]
    titles = explain.titles_of(run.manifest, shown)
    with files.atomic_write(run.outdir / REASONS_PAGE) as file:
        file.write(page.markdown(explained, titles).encode())
    return [run.outdir / REASONS, run.outdir / REASONS_PAGE]
