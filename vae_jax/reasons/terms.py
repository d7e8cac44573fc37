"""Which words of lyrics set clusters apart: log-odds with an informative prior.

Letters: N tracks, K clusters, V terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_jax.reasons import differences

MIN_TRACKS = 3  # that use a term
MAX_TERMS = 2000  # the most frequent ones


@dataclass(frozen=True)
class Terms:
    """How terms set clusters apart from the other tracks with lyrics.

    Attributes
    ----------
    names
        The terms, [V].
    inside, sizes
        How many tracks of each cluster use them, [K, V], of how many that have lyrics, [K].
    total, count
        How many of all tracks do, [V], of how many.
    log_odds, z
        Their log-odds ratios and z-scores, [K, V].
    p
        The probability of as large a z anywhere, were the clusters drawn at random, [K, V].
    """

    names: list[str]
    inside: np.ndarray
    sizes: np.ndarray
    total: np.ndarray
    count: int
    log_odds: np.ndarray
    z: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class Used:
    """Which terms tracks use.

    Attributes
    ----------
    names
        The terms, [V].
    rows
        Which tracks have lyrics, or a sample of these, [n].
    counts
        Sparse [n, V]: 1 where a track uses a term, however often its chorus repeats it.
    """

    names: list[str]
    rows: np.ndarray
    counts: Any


def count(lyrics: Sequence[str], seed: int) -> Used | None:
    """Find the terms of lyrics, [N]; None if too few tracks have any in common."""
    from sklearn.feature_extraction.text import CountVectorizer

    from vae_jax.features.lyrics_text import LyricsError, clean

    texts, rows = [], []
    given = np.flatnonzero([bool(text) for text in lyrics])
    for row in given[differences.sample(len(given), seed)].tolist():
        try:
            texts.append(clean(lyrics[row]))
            rows.append(row)
        except LyricsError:
            continue
    vectorizer = CountVectorizer(
        binary=True,
        token_pattern=r"\S+",
        lowercase=False,
        min_df=MIN_TRACKS,
        max_features=MAX_TERMS,
    )
    if len(texts) < 2 * MIN_TRACKS:
        return None
    try:
        counts = vectorizer.fit_transform(texts).astype(np.float64)
    except ValueError:  # no term is used so often
        return None
    return Used(vectorizer.get_feature_names_out().tolist(), np.array(rows), counts)


def terms(used: Used, clusters: np.ndarray, seed: int) -> Terms:
    """Compare clusters, [N] from 0 to K - 1 (-1 is none), in the terms that they use."""
    from scipy import sparse

    num_clusters, placed = int(clusters.max(initial=-1)) + 1, clusters[used.rows]
    members = np.flatnonzero(placed >= 0)

    def inside(order: np.ndarray) -> np.ndarray:
        where = (placed[members], order[members])
        shape = (num_clusters, len(placed))
        drawn = sparse.csr_matrix((np.ones(len(members)), where), shape=shape)
        return (drawn @ used.counts).toarray()

    total = np.asarray(used.counts.sum(axis=0)).ravel()
    prior = total / max(num_clusters, 1)  # as much as one cluster tells

    def scores(order: np.ndarray) -> np.ndarray:
        return log_odds(inside(order), total, prior)[1]

    found = inside(np.arange(len(placed)))
    ratios, z = log_odds(found, total, prior)
    return Terms(
        names=used.names,
        inside=found.astype(int),
        sizes=np.bincount(placed[members], minlength=num_clusters),
        total=total.astype(int),
        count=len(placed),
        log_odds=ratios,
        z=z,
        p=differences.chance(z, scores, len(placed), seed),
    )


def log_odds(
    inside: np.ndarray, total: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-odds ratios of terms in each cluster against all others, and their z-scores.

    Equations 16, 20 and 22 of Monroe, Colaresi and Quinn 2008, with an informative Dirichlet prior.

    Parameters
    ----------
    inside
        Counts of the terms in each cluster, [K, V].
    total
        Counts of the terms in all tracks, [V].
    prior
        What is added to the counts of either side, [V], above 0.
    """
    own, others = inside + prior, total - inside + prior
    own_rest = own.sum(axis=1, keepdims=True) - own
    others_rest = others.sum(axis=1, keepdims=True) - others
    smallest = 1e-12  # where there is but one term
    ratios = np.log(own / np.maximum(own_rest, smallest))
    ratios -= np.log(others / np.maximum(others_rest, smallest))
    return ratios, ratios / np.sqrt(1 / own + 1 / others)
