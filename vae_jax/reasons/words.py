"""Puts what sets a cluster apart into words, and into a name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_SAID = 4  # reasons of a kind in a sentence
MOST_ADJECTIVES = 2  # in a name
NAMING_SHARE = 0.5  # of a cluster's tracks must have the label that names it
MAX_NAME = 40  # characters


@dataclass(frozen=True)
class Word:
    """How people say that tracks have more or less of something.

    Attributes
    ----------
    more, less
        Compared with others.
    much, little
        As a name says it; "" if names should not.
    unit, decimals
        How the values are written.
    """

    more: str
    less: str
    much: str = ""
    little: str = ""
    unit: str = ""
    decimals: int = 2


WORDS = {
    "loudness_db": Word("louder", "quieter", "loud", "quiet", " dB", 1),
    "loudness_range_db": Word("more dynamic", "less dynamic", "dynamic", "even", " dB", 1),
    "brightness_hz": Word("brighter", "darker", "bright", "dark", " Hz", 0),
    "noisiness": Word("noisier", "more tonal", "noisy", "tonal", "", 3),
    "attacks_per_second": Word("busier", "sparser", "busy", "sparse", " attacks/s", 1),
    "tempo_bpm": Word("faster", "slower", "fast", "slow", " bpm", 0),
    "tempo_confidence": Word("a clearer beat", "a vaguer beat"),
    "key_confidence": Word("a clearer key", "a vaguer key"),
}


def difference(found: Mapping[str, Any]) -> str:
    """Say how a cluster differs: "faster (132 against 104 bpm)"."""
    word = WORDS[found["descriptor"]]
    inside, outside = (f"{found[name]:.{word.decimals}f}" for name in ("inside", "outside"))
    comparison = word.more if found["difference"] > 0 else word.less
    return f"{comparison} ({inside} against {outside}{word.unit})"


def share(found: Mapping[str, Any]) -> str:
    """Say how frequent a label is: "genre jazz (80% against 10%)"."""
    return f"{found['column']} {found['value']} ({_percent(found)})"


def term(found: Mapping[str, Any]) -> str:
    """Say how frequent a word of lyrics is."""
    return f'"{found["term"]}" ({_percent(found)})'


def sentences(cluster: Mapping[str, Any]) -> list[str]:
    """Return the reasons of a cluster in words, a sentence for each kind, without its full stop."""
    said = [
        ", ".join(map(difference, cluster["differences"][:MOST_SAID])),
        ", ".join(map(share, cluster["labels"][:MOST_SAID])),
    ]
    if cluster["terms"]:
        said.append(f"lyrics with {', '.join(map(term, cluster['terms'][:MOST_SAID]))}")
    return [sentence for sentence in said if sentence]


def name(cluster: Mapping[str, Any]) -> str:
    """Suggest a name for a cluster: "quiet, dark classical"; "" if nothing sets it apart."""
    adjectives = [
        WORDS[one["descriptor"]].much if one["difference"] > 0 else WORDS[one["descriptor"]].little
        for one in cluster["differences"]
    ]
    parts = [", ".join([word for word in adjectives if word][:MOST_ADJECTIVES])]
    labels = [one for one in cluster["labels"] if one["share"] >= NAMING_SHARE]
    parts += [one["value"] for one in labels if one["column"] not in ("key", "mode")][:1]
    if not any(parts):
        parts = [", ".join(one["term"] for one in cluster["terms"][:MOST_ADJECTIVES])]
    text = " ".join(" ".join(filter(None, parts)).split())
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"


def dimension(goes_with: Iterable[Mapping[str, Any]]) -> str:
    """Say what becomes more as a latent dimension grows: "faster, darker"."""
    said: Sequence[str] = [
        WORDS[one["descriptor"]].more
        if one["rank_correlation"] > 0
        else WORDS[one["descriptor"]].less
        for one in goes_with
    ]
    return ", ".join(said[:MOST_ADJECTIVES])


def _percent(found: Mapping[str, Any]) -> str:
    return f"{found['share']:.0%} against {found['overall']:.0%}"
