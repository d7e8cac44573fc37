"""Reasons on constructed clusters, where it is known what sets them apart."""

import numpy as np
import pytest

from vae_jax.reasons import differences, explain, page, shares, terms, words

N, K = 120, 3
CLUSTERS = np.arange(N) % K
COMMON = ("la", "night", "heart", "rain", "road", "light", "time", "away", "home", "down")


def known(seed=1, planted=False, has_lyrics=True):
    """Return random facts about tracks; with three planted ones about clusters 0, 1 and 2."""
    rng = np.random.default_rng(seed)
    names = [*words.WORDS]
    values = rng.normal(size=(N, len(names)))
    values[:, names.index("tempo_bpm")] = rng.normal(110, 12, N)
    values[rng.random(values.shape) < 0.05] = np.nan
    genres = rng.choice(["rock", "pop", "jazz", "folk"], N)
    artists = [f"artist {i}" for i in rng.integers(0, 30, N)]
    lyrics = [" ".join(rng.choice(COMMON, 6)) for _ in range(N)]
    if planted:
        values[CLUSTERS == 0, names.index("tempo_bpm")] += 25
        genres[(CLUSTERS == 1) & (rng.random(N) < 0.7)] = "jazz"
        lyrics = [
            f"{text} sea" if cluster == 2 and rng.random() < 0.7 else text
            for text, cluster in zip(lyrics, CLUSTERS, strict=True)
        ]
    labels = {"genre": genres.tolist(), "artist": artists}
    used = terms.count(lyrics, 0) if has_lyrics else None
    return explain.Known([f"t{i}" for i in range(N)], names, values, labels, used)


def rows(clusters, **cells):
    table = []
    for i, cluster in enumerate(clusters.tolist()):
        distance = f"{i / 100:g}" if cluster >= 0 else ""
        table.append({"id": f"t{i}", "cluster": str(cluster), "distance": distance, **cells})
    return table


def test_planted_differences_are_found_and_nothing_else():
    found = explain.of_method(rows(CLUSTERS), "", known(planted=True), seed=0)
    by_number = {cluster["cluster"]: cluster for cluster in found}
    listed = [one["descriptor"] for cluster in found for one in cluster["differences"]]
    assert {*listed} == {"tempo_bpm"}  # the others are slower than the tracks of that cluster
    (tempo,) = by_number[0]["differences"]
    assert tempo["low"] < 25 / 12 < tempo["high"]  # of the normal distribution that was shifted
    assert [(one["column"], one["value"]) for one in by_number[1]["labels"]] == [("genre", "jazz")]
    assert [one["term"] for one in by_number[2]["terms"]] == ["sea"]
    said = f"faster ({tempo['inside']:.0f} against {tempo['outside']:.0f} bpm)"
    assert by_number[0]["reasons"] == [said]
    assert any(reason.startswith("genre jazz (") for reason in by_number[1]["reasons"])
    assert by_number[0]["name"] == "fast"
    assert "jazz" in by_number[1]["name"]


@pytest.mark.parametrize(
    ("has_lyrics", "draws"), [(False, 100), pytest.param(True, 200, marks=pytest.mark.slow)]
)
def test_clusters_that_are_drawn_at_random_have_no_reason_in_95_percent_of_the_draws(
    monkeypatch, has_lyrics, draws
):
    monkeypatch.setattr(differences, "PERMUTATIONS", 99)
    facts, free = known(planted=True, has_lyrics=has_lyrics), 0
    for draw in range(draws):
        shuffled = np.random.default_rng([1, draw]).permutation(CLUSTERS)
        found = explain.of_method(rows(shuffled), "", facts, seed=draw)
        free += not any(cluster["reasons"] for cluster in found)
    assert free >= 0.95 * draws


def test_log_odds_are_those_of_the_paper_in_float64():
    rng = np.random.default_rng(0)
    inside, prior = rng.integers(0, 40, (3, 50)).astype(float), rng.uniform(0.1, 5, 50)
    ratios, z = terms.log_odds(inside, inside.sum(axis=0), prior)
    for i in range(3):
        y, n = inside[i], inside[i].sum()
        others = np.delete(inside, i, axis=0).sum(axis=0)
        m, a0 = others.sum(), prior.sum()
        for w in range(50):  # equations 16, 20 and 22 of Monroe et al. 2008
            delta = np.log((y[w] + prior[w]) / (n + a0 - y[w] - prior[w])) - np.log(
                (others[w] + prior[w]) / (m + a0 - others[w] - prior[w])
            )
            variance = 1 / (y[w] + prior[w]) + 1 / (others[w] + prior[w])
            assert ratios[i, w] == pytest.approx(delta, rel=1e-9)
            assert z[i, w] == pytest.approx(delta / np.sqrt(variance), rel=1e-9)


def test_a_repeated_chorus_counts_once():
    lyrics = ["sea " * 50] + ["rain road"] * 11
    clusters = np.repeat([0, 1], 6)
    used = terms.count([*lyrics[:3], *["sea rain"] * 3, *lyrics[3:9]], 0)
    found = terms.terms(used, clusters, 0)
    assert found.total[found.names.index("sea")] == 4


def test_shares_are_hypergeometric_and_corrected_for_all_that_was_tried():
    labels = ["a"] * 10 + ["b"] * 30
    clusters = np.repeat([0, 1], [12, 28])
    found = next(one for one in shares.shares({"genre": labels}, clusters) if one.value == "a")
    assert (found.cluster, found.inside, found.size) == (0, 10, 12)
    assert (found.total, found.count) == (10, 40)
    by_hand = np.prod([(12 - i) / (40 - i) for i in range(10)])  # that all are among the twelve
    assert found.p == pytest.approx(4 * by_hand)  # two labels in two clusters


def test_rank_correlations_equal_scipys_and_are_judged_together():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    latents, values = rng.normal(size=(80, 4)), rng.normal(size=(80, 5))
    values[:, 2] = np.exp(latents[:, 1]) + 0.1 * values[:, 2]
    found, p = differences.rank_correlations(latents, values, 0)
    assert found[1, 2] == pytest.approx(spearmanr(latents[:, 1], values[:, 2]).statistic)
    assert np.argwhere(p <= 0.05).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "clusters",
    [np.zeros(5, int), np.full(5, -1), np.array([0, 0, 1, 1, -1]), np.arange(5)],
    ids=["one cluster", "noise alone", "five tracks", "a cluster each"],
)
def test_few_tracks_and_few_clusters_break_nothing(clusters):
    everything = known()
    few = explain.Known(
        everything.ids[:5],
        everything.names,
        everything.values[:5],
        {name: cells[:5] for name, cells in everything.labels.items()},
        terms.count(["la la"] * 5, 0),
    )
    found = explain.of_method(rows(clusters), "", few, seed=0)
    assert [cluster["reasons"] for cluster in found] == [[]] * len({*clusters.tolist()} - {-1})
    explained = {
        "tracks": 5, "permutations": 499, "note": "", "methods": {"vae": found}, "dimensions": []
    }  # fmt: skip
    for cluster in found:
        cluster["given"] = ""
    assert page.markdown(explained, {id_: id_ for id_ in few.ids}).startswith("# Clusters")


def test_typical_tracks_are_the_nearest_and_those_at_the_edge_are_others():
    (first, *_) = explain.of_method(rows(CLUSTERS), "", known(), seed=0)
    assert first["typical"] == ["t0", "t3", "t6", "t9", "t12"]
    assert first["edge"] == ["t117", "t114", "t111"]


def test_hostile_texts_are_escaped_and_control_characters_never_written():
    text = page.escaped("<b>*x*</b> [a](javascript:b)\n# h\x1b[31m\u202e |`~` https://x.y &amp;")
    assert not {"\x1b", "\u202e", "\n"} & {*text}
    for character in "<>*[]#|`~&":
        assert all(text[i - 1] == "\\" for i, c in enumerate(text) if c == character)
    assert "https\\://" in text
