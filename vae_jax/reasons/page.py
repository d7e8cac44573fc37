"""Writes `clusters.md`, which anything that knows Markdown displays."""

import re
from collections.abc import Mapping
from typing import Any

from vae_jax.console import shown

_SPECIAL = re.compile(r"([\\`*_\[\]<>#!|~&]|:(?=//)|(?<=www)\.)")  # also what would become a link


def markdown(explained: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Return the page about the VAE's clusters.

    Parameters
    ----------
    explained
        What `clusters.json` holds.
    titles
        What the tracks that are named are called, by their ids.
    """
    clusters, tracks = explained["methods"]["vae"], explained["tracks"]
    parts = [
        "# Clusters",
        f"{tracks:,} tracks in {len(clusters)} cluster{'s' * (len(clusters) != 1)}. A difference "
        "is listed where clusters that are drawn at random would show one as large, anywhere, in "
        f"at most 5% of the draws ({explained['permutations']} permutations of the tracks).",
    ]
    if explained["note"]:
        parts.append(escaped(explained["note"]))
    parts += ["\n\n".join(_cluster(cluster, titles)) for cluster in clusters]
    if any(one["goes_with"] for one in explained["dimensions"]):
        parts += ["## Dimensions of the latent", *_dimensions(explained)]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return a text that Markdown displays as it is, on one line, without control characters."""
    return _SPECIAL.sub(r"\\\1", shown(" ".join(text.split())))


def _cluster(cluster: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    name = cluster["given"] or cluster["name"]
    heading = f"## Cluster {cluster['cluster']}" + (f": {escaped(name)}" if name else "")
    plural = "s" * (cluster["size"] != 1)
    lines = [f"{heading}\n\n{cluster['size']:,} track{plural} ({cluster['share']:.0%})."]
    lines += [
        f"{what}: {'; '.join(escaped(titles[id_]) for id_ in cluster[kind])}."
        for what, kind in (("Typical", "typical"), ("At its edge", "edge"))
        if cluster[kind]
    ]
    reasons = "\n".join(f"- {escaped(reason)}" for reason in cluster["reasons"])
    lines.append(reasons or "Nothing that is known of its tracks sets it apart.")
    if cluster["differences"]:
        lines.append(_table(cluster["differences"]))
    return lines


def _table(differences: list[dict[str, Any]]) -> str:
    rows = [
        "| descriptor | median here | elsewhere | difference (95% interval) |",
        "|---|---|---|---|",
    ]
    rows += [
        f"| {escaped(one['descriptor'])} | {one['inside']:g} | {one['outside']:g} "
        f"| {one['difference']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f}) |"
        for one in differences
    ]
    return "\n".join(rows)


def _dimensions(explained: Mapping[str, Any]) -> list[str]:
    rows = ["| latent | as it grows | rank correlations |", "|---|---|---|"]
    for one in explained["dimensions"]:
        if one["goes_with"]:
            listed = ", ".join(
                f"{escaped(with_['descriptor'])} {with_['rank_correlation']:+.2f}"
                for with_ in one["goes_with"]
            )
            rows.append(f"| {one['dimension']} | {escaped(one['name'])} | {listed} |")
    return ["\n".join(rows)]
