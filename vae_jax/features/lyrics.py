"""Embeds cleaned lyrics as TF-IDF of words and character n-grams, in any language.

`fit` learns vocabulary, weights and, if asked, a truncated SVD from a collection; the resulting
`LyricsEmbedding` turns lyrics into vectors, and is saved as one JSON file, from which new lyrics
are embedded identically later.

Words carry topic; character n-grams within words carry language and morphology, and are what
makes scripts without spaces between words (Chinese, Japanese, Thai) comparable at all. TF-IDF
with a truncated SVD is latent semantic analysis (Deerwester et al. 1990).
"""

import base64
import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from absl import logging
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from vae_jax.errors import UserError
from vae_jax.features.lyrics_text import LyricsError, clean
from vae_jax.storage import files

MAX_FIT = 10_000  # songs that vocabulary, weights and SVD are learned from
ANALYZERS = {"word": (1, 1), "char_wb": (2, 4)}  # shortest and longest n-gram
FORMAT = 1  # of the saved JSON


@dataclass(frozen=True)
class Ngrams:
    """The vocabulary of one analyzer, with weights.

    Attributes
    ----------
    analyzer
        "word", or "char_wb" for characters within words.
    lengths
        The lengths of the shortest and the longest n-gram.
    terms
        The n-grams, in the order of the columns.
    idf
        Inverse document frequencies, float64 [V].
    """

    analyzer: str
    lengths: tuple[int, int]
    terms: tuple[str, ...]
    idf: np.ndarray

    @cached_property
    def vectorizer(self) -> TfidfVectorizer:
        """Turns cleaned texts into TF-IDF rows of unit length."""
        vocabulary = {term: column for column, term in enumerate(self.terms)}
        vectorizer = _vectorizer(self.analyzer, self.lengths, vocabulary=vocabulary)
        vectorizer.idf_ = self.idf
        return vectorizer


@dataclass(frozen=True)
class LyricsEmbedding:
    """Turns lyrics into vectors of D numbers; see `fit`.

    Attributes
    ----------
    blocks
        One vocabulary per analyzer, V terms in total.
    components
        The SVD's right singular vectors, float32 [D, V], or None without SVD (then D = V).
    """

    blocks: tuple[Ngrams, ...]
    components: np.ndarray | None = None

    @property
    def dim(self) -> int:
        """The number D of columns."""
        if self.components is None:
            return sum(len(block.terms) for block in self.blocks)
        return len(self.components)

    def transform(self, lyrics: Sequence[str]) -> np.ndarray:
        """Embed lyrics as float32 [N, D] rows of unit length.

        A row does not depend on the other rows. Lyrics that share no n-gram with the vocabulary
        are all zeros.

        Raises
        ------
        LyricsError
            If any of the lyrics hold no words.
        """
        texts = [clean(text) for text in lyrics]
        weights = _join([block.vectorizer.transform(texts) for block in self.blocks])
        if self.components is None:
            return weights.toarray().astype(np.float32)
        return normalize(weights @ self._projection).astype(np.float32)

    @cached_property
    def _projection(self) -> np.ndarray:
        """The components as the sparse product needs them: float64 [V, D]."""
        assert self.components is not None
        return np.ascontiguousarray(self.components.T, np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-like values, exactly."""
        components = self.components
        return {
            "format": FORMAT,
            "blocks": [
                {
                    "analyzer": block.analyzer,
                    "lengths": list(block.lengths),
                    "terms": list(block.terms),
                    "idf": block.idf.tolist(),
                }
                for block in self.blocks
            ],
            "components": None
            if components is None
            else {
                "shape": list(components.shape),
                "float32_base64": base64.b64encode(components.astype("<f4").tobytes()).decode(),
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LyricsEmbedding":
        """Rebuild what `to_dict` returned; the embedding is bit-identical."""
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r} instead of {FORMAT}")
        blocks = tuple(
            Ngrams(
                block["analyzer"],
                tuple(block["lengths"]),
                tuple(block["terms"]),
                np.array(block["idf"], np.float64),
            )
            for block in values["blocks"]
        )
        stored = values["components"]
        if stored is None:
            return cls(blocks)
        data = base64.b64decode(stored["float32_base64"], validate=True)
        components = np.frombuffer(data, "<f4").reshape(stored["shape"]).astype(np.float32)
        return cls(blocks, components)

    def save(self, path: str | os.PathLike) -> None:
        """Write the embedding as JSON."""
        files.write_json(path, self.to_dict())


def load(path: str | os.PathLike) -> LyricsEmbedding:
    """Read an embedding that `LyricsEmbedding.save` wrote.

    Raises
    ------
    UserError
        If the file is missing or is not such an embedding.
    """
    try:
        return LyricsEmbedding.from_dict(files.read_json(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the features stage first.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not a lyrics embedding of this version of vae_jax ({error}): "
            "delete it and run the features stage again."
        ) from error


def fit(
    lyrics: Sequence[str], *, embed_dim: int = 128, max_features: int = 8192, seed: int = 0
) -> LyricsEmbedding:
    """Learn an embedding from a collection of lyrics.

    Words and character n-grams are weighted by (1 + log tf) idf, each block scaled to unit length.

    Parameters
    ----------
    lyrics
        At most `MAX_FIT` of them are used, evenly spaced in the collection. Lyrics without words
        are ignored.
    embed_dim
        Columns of the SVD; fewer if there are fewer songs or terms. 0 is no SVD.
    max_features
        The number of terms that each analyzer keeps: the most frequent ones.
    seed
        The seed of the randomised SVD.

    Raises
    ------
    UserError
        If no lyrics hold words.
    """
    if len(lyrics) > MAX_FIT:
        logging.info("lyrics: learning from %d of %d songs.", MAX_FIT, len(lyrics))
        lyrics = [lyrics[i] for i in np.linspace(0, len(lyrics) - 1, MAX_FIT).round().astype(int)]
    texts = _cleaned(lyrics)
    if not texts:
        raise UserError("no track has lyrics with words: fill the manifest's column lyrics.")
    blocks, weights = [], []
    for analyzer, lengths in ANALYZERS.items():
        vectorizer = _vectorizer(analyzer, lengths, max_features=max_features)
        weights.append(vectorizer.fit_transform(texts))
        terms = vectorizer.get_feature_names_out().tolist()
        blocks.append(Ngrams(analyzer, lengths, tuple(terms), vectorizer.idf_))
    components = _svd(_join(weights), embed_dim, seed) if embed_dim else None
    return LyricsEmbedding(tuple(blocks), components)


def _cleaned(lyrics: Sequence[str]) -> list[str]:
    """Clean all that hold words, and log how many do, and what was removed from how many."""
    texts, removed = [], Counter[str]()
    for text in lyrics:
        with contextlib.suppress(LyricsError):
            texts.append(clean(text, removed))
    wordless = sum(bool(text.strip()) for text in lyrics) - len(texts)
    found = [f"{kind} from {count}" for kind, count in removed.most_common()]
    logging.info("lyrics: %d songs hold words, %d say that there are none", len(texts), wordless)
    if found:
        logging.info("lyrics: removed %s of these songs", ", ".join(found))
    return texts


def _svd(weights: sparse.csr_array, embed_dim: int, seed: int) -> np.ndarray:
    """Return the first right singular vectors of [N, V] weights: float32 [D, V]."""
    dim = min(embed_dim, *weights.shape)
    if dim < embed_dim:
        logging.info(
            "lyrics: %d dimensions instead of lyrics_embed_dim=%d: there are only %d songs and "
            "%d terms.", dim, embed_dim, *weights.shape,
        )  # fmt: skip
    _, _, components = randomized_svd(weights, dim, n_iter=7, flip_sign=False, random_state=seed)
    # A singular vector's sign is arbitrary: make its largest entry positive.
    largest = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(dim), largest])[:, None]
    return components.astype(np.float32)


def _vectorizer(analyzer: str, lengths: tuple[int, int], **options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=lengths,
        token_pattern=r"\S+" if analyzer == "word" else None,  # `clean` has split the words
        lowercase=False,
        sublinear_tf=True,
        **options,
    )


def _join(weights: Sequence[sparse.csr_array]) -> sparse.csr_array:
    """Put the blocks' weights side by side: float64 [N, V], with rows of unit length."""
    return normalize(sparse.hstack(weights, "csr"))
