import json
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_rand_score

from vae_jax import demo
from vae_jax.errors import UserError
from vae_jax.features import lyrics
from vae_jax.features.lyrics import LyricsError, clean, fit, load
from vae_jax.features.lyrics_text import MAX_CHARACTERS, has_words

SCRIPTS = {
    "chinese": ["世界上只有一朵花\n在雨中開放", "我在雨中等你\n世界很大", "月亮代表我的心\n我愛你"],
    "japanese": ["夜空に花火が上がる\n夏の終わり", "夏の夜に君を待つ", "さくらさくら\n夏の花火"],
    "thai": ["ฉันรักเธอเสมอ\nในคืนที่ฝนตก", "ฝนตกในคืนนั้น\nฉันรอเธอ", "ดวงจันทร์ในใจของฉัน"],
    "arabic": ["يا ليل يا عين\nقلبي معك", "قلبي في الليل\nيبكي عليك", "يا قمر الليل"],
    "hebrew": ["הלילה הארוך\nהלב שלי", "הלב שלי בוער\nבלילה", "ירח מעל העיר"],
    "hindi": ["मेरा दिल तुम्हारा है\nरात भर", "रात में चाँद\nमेरा दिल", "तुम मेरे साथ चलो"],
    "russian": ["моё сердце поёт\nв ночи", "в ночи горит огонь", "сердце ждёт тебя"],
    "english": ["my heart is singing\nin the night", "the fire burns at night", "waiting for you"],
}


def songs(num=60):
    """Songs in three languages, of the demo's word lists, and their languages."""
    rows = [demo._describe(index, seed=0) for index in range(num)]
    return [row["lyrics"] for row in rows], [row["language"] for row in rows]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("[Chorus]\nla la land", "la la land"),
        ("[Refrain: Jane & John]\nla la land", "la la land"),
        ("Sing it [x2] again", "sing it\nagain"),
        ("(Refrain 2x)\nla la land (Chorus)\nbye (x3)", "la la land\nbye"),
        ("Chorus:\nhello\nVerse 2\nworld\nPre-Chorus (x2)\nbye", "hello\nworld\nbye"),
        ("** Refrain **\nhello\n— Strophe 1 —\nworld", "hello\nworld"),
        ("Estribillo\nhola\nCouplet 2 :\nallô\nПрипев:\nпривет", "hola\nallô\nпривет"),
        ("Songtext zu Nachts von Jane\nhallo", "hallo"),
        ("Paroles de la chanson Nuit par Jane\nallô", "allô"),
        ("Letra de Noche\nhola", "hola"),
        ("12 ContributorsMy Song Lyrics[Verse 1]\nhello\ngoodbye123Embed", "hello\ngoodbye"),
        ("1 Contributor愛 Lyrics\n愛してる\nまたねEmbed", "愛してる\nまたね"),
        ("night\nall dayYou might also like[Outro]\nbye12Embed", "night\nall day\nbye"),
        ("[00:12.34] one <00:13.00> two\n[ar:Jane]", "one two"),
        ("00:12.10 one\n00:14.20 - 00:15.00 two\nthree", "one\ntwo\nthree"),
        (
            "1\n00:00:12,000 --> 00:00:14,000\none\n\n2\n00:00:15,000 --> 00:00:16,000\ntwo",
            "one\ntwo",
        ),
        ("WEBVTT\n\n00:12.000 --> 00:14.000 align:start\none", "one"),
        ("one<br>two<br />three<p class='x'>four <i>fi</i>ve", "one\ntwo\nthree\nfour five"),
        ("you &amp; me&#39;s &amp;quot;love&amp;quot;&nbsp;&#x2665;", "you me s love"),
        (r"one\ntwo\r\nth\u00e9", "one\ntwo\nthé"),
        (
            "Hel[Am]lo dark[G/B]ness\n{start_of_chorus}\nmy [F#m7]friend",
            "hello darkness\nmy friend",
        ),
        ("Am   F   C/G  G7\nhello\nA\nworld\nN.C. | F#m |", "hello\nworld"),
        ("e|---0---2h3--|\nB|---1---3----|\nhello", "hello"),
        ("hello\nWritten by: Jane Doe\nLyrics licensed by XY", "hello"),
        ("look at https://example.org/lyrics", "look at"),
    ],
)
def test_headers_tags_and_boilerplate_are_removed(text, cleaned):
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (
            "I cross the bridge\nto the chorus of birds",
            "i cross the bridge\nto the chorus of birds",
        ),
        ("hold me (oh hold me)", "hold me oh hold me"),
        ("(solo para ti)", "solo para ti"),
        ("first\nletra de amor\nlast", "first\nletra de amor\nlast"),
        ("written by the stars", "written by the stars"),
        ("you might also like me", "you might also like me"),
        ("A B C\neasy as\n1 2 3", "a b c\neasy as\n1 2 3"),
        ("A\nE\nI want", "a\ne\ni want"),
        ("3:16 in the morning\nI wait\nfor you", "3 16 in the morning\ni wait\nfor you"),
        ("I <3 you and you > me", "i 3 you and you me"),
        ("none of this\nis instrumental", "none of this\nis instrumental"),
        ("AT&T; R&B &c", "at t r b c"),
    ],
)
def test_sung_words_are_kept(text, cleaned):
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("ＨＥＬＬＯ ﬁre", "hello fire"),
        ("e\u0301te\u0301", "été"),
        ("STRASSE Straße", "strasse strasse"),
        ("a\x00b\x07c\x1bd", "a b c d"),
        ("\ufeffsoft\u00adly\u200d", "softly"),
        ("\u202bשלום\u202c", "שלום"),
        ("ฉัน\u200bรัก", "ฉัน รัก"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("it’s l'amour, 1999!", "it s l amour 1999"),
        ("lone \ud800 surrogate", "lone surrogate"),
    ],
)
def test_equal_words_are_spelled_equally(text, cleaned):
    assert clean(text) == cleaned


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec=None), max_size=60))
def test_cleaned_text_holds_only_words_of_valid_unicode_or_raises(text):
    try:
        cleaned = clean(text)
    except LyricsError:
        return
    cleaned.encode()
    assert cleaned == cleaned.strip()
    assert all(word for line in cleaned.split("\n") for word in line.split(" "))
    assert all(char.isalnum() or char in " \n" or not char.isascii() for char in cleaned)


@pytest.mark.parametrize(
    "text", ["", " \n\t", "[Instrumental]", "Chorus:\n(2x)", "... !?", "♪♪\u200b"]
)
def test_lyrics_without_words_are_an_error_that_says_why(text):
    with pytest.raises(LyricsError, match=r"no (lyrics|words)"):
        clean(text)
    with pytest.raises(LyricsError):
        fit(["some words"]).transform([text])


@pytest.mark.parametrize(
    "text",
    [
        *(
            "nan",
            "None",
            " N/A ",
            "NULL",
            "<NA>",
            "#N/A",
            "instrumental",
            "(Instrumental)",
            "-",
            "?",
        ),
        *("Lyrics not available", "No lyrics available.", "Lyrics unavailable", "unknown"),
        *("This song is an instrumental", "<p>&nbsp;N/A</p>", "[00:00.00]纯音乐，请您欣赏"),
        "Lyrics for this song have yet to be released. Please check back once it is released.",
    ],
)
def test_words_that_stand_for_no_lyrics_are_no_lyrics(text):
    with pytest.raises(LyricsError, match=r"stands for none|no words"):
        clean(text)
    assert not has_words(text)


def test_each_kind_of_thing_that_is_removed_is_counted_once_per_song(caplog):
    texts = [
        "[Verse]\none<br>two<br>three",
        "[00:12.00]one &amp; two",
        "a pure\u200bly sung [Am]line",
    ]
    removed = Counter()
    for text in texts:
        clean(text, removed)
    assert removed == {
        **{"section marks": 1, "tags": 1, "time stamps": 1, "entities": 1, "chords": 1},
        "invisible characters": 1,
    }
    with caplog.at_level("INFO"):
        fit([*texts, "[Verse 2]\nfour", "nan", ""])
    assert "4 songs hold words, 1 say that there are none" in caplog.text
    assert "section marks from 2" in caplog.text


def test_lyrics_without_words_teach_nothing():
    texts, _ = songs(6)
    assert fit(["", *texts, "[Instrumental]", "nan"]).to_dict() == fit(texts).to_dict()


@pytest.mark.parametrize(
    "unit",
    ["word\n", "x", "[", "(chorus ", "(x", "<1", "http://", "1 contributors ", "9", " ",
     "you might also like", "\u0338\u0327\u0301", "\ufdfa", "verse 1 ", "<a", "&a", "Am ", "A-",
     "{", "[A", "1:00 ", "\n1:00:00.00 --> ", "e|-", "A|", "\\n", "&#38;", "A\n", "no lyrics "],
)  # fmt: skip
def test_ten_million_characters_of_anything_are_cleaned_within_seconds(unit):
    text = ("a" + unit * (10_000_000 // len(unit)))[:10_000_000]
    start = time.process_time()
    cleaned = clean(text)
    assert time.process_time() - start < 1.5
    assert len(cleaned) <= MAX_CHARACTERS * 20


def test_lyrics_are_cut_after_the_stated_number_of_characters():
    assert clean("ab " * MAX_CHARACTERS) == clean("ab " * 10**6)
    assert "end" in clean("ab\n" * (MAX_CHARACTERS // 3 - 1) + "end")
    assert "end" not in clean("ab\n" * (MAX_CHARACTERS // 3 + 1) + "end")


def sklearn_tfidf(texts, queries, max_features=None):
    """scikit-learn's own TF-IDF of words and of character n-grams, float64 [N, V]."""
    common = {"sublinear_tf": True, "max_features": max_features}
    word = TfidfVectorizer(token_pattern=r"(?u)[^\s]+", **common)
    char = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **common)
    blocks = [model.fit(texts).transform(queries).toarray() for model in (word, char)]
    return np.hstack(blocks) / np.sqrt(2)


def test_tfidf_equals_scikit_learns_on_the_cleaned_text():
    texts, _ = songs()
    cleaned = [clean(text) for text in texts]
    found = fit(texts[:40], embed_dim=0).transform(texts)
    np.testing.assert_allclose(found, sklearn_tfidf(cleaned[:40], cleaned), atol=1e-6)


def test_the_svd_equals_numpys():
    texts, _ = songs()
    cleaned = [clean(text) for text in texts]
    embedding = fit(texts, embed_dim=len(texts))
    weights = sklearn_tfidf(cleaned, cleaned)
    components = np.linalg.svd(weights, full_matrices=False)[2]
    components *= np.sign(np.sum(components * embedding.components, axis=1, keepdims=True))
    expected = weights @ components.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embedding.components, components, atol=1e-5)
    np.testing.assert_allclose(embedding.transform(texts), expected, atol=1e-5)


@pytest.mark.parametrize("embed_dim", [2, 8, 32])
def test_a_truncated_svd_keeps_as_much_as_numpys(embed_dim):
    texts, _ = songs(90)
    cleaned = [clean(text) for text in texts]
    weights = sklearn_tfidf(cleaned, cleaned)
    components = fit(texts, embed_dim=embed_dim).components
    np.testing.assert_allclose(components @ components.T, np.eye(embed_dim), atol=1e-5)
    kept = np.sum((weights @ components.T) ** 2)
    best = np.sum(np.linalg.svd(weights, compute_uv=False)[:embed_dim] ** 2)
    assert 0.999 < kept / best < 1 + 1e-5


def test_each_singular_vector_has_its_largest_entry_positive():
    components = fit(songs()[0], embed_dim=8).components
    largest = np.abs(components).argmax(axis=1)
    assert (components[np.arange(8), largest] > 0).all()


@pytest.mark.parametrize("embed_dim", [0, 16])
def test_a_saved_embedding_gives_bit_identical_vectors(tmp_path, embed_dim):
    texts, _ = songs()
    embedding = fit(texts, embed_dim=embed_dim)
    embedding.save(tmp_path / "lyrics.json")
    loaded = load(tmp_path / "lyrics.json")
    new = [*texts, "an unseen song about the moon", "ein neues Lied"]
    assert np.array_equal(loaded.transform(new), embedding.transform(new))
    assert loaded.dim == embedding.dim == embedding.transform(new).shape[1]
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "lyrics.json").read_bytes()


def test_fitting_twice_gives_identical_embeddings():
    texts, _ = songs()
    assert fit(texts, seed=5).to_dict() == fit(texts, seed=5).to_dict()


@pytest.mark.parametrize("embed_dim", [0, 16])
def test_a_row_does_not_depend_on_the_other_rows(embed_dim):
    texts, _ = songs()
    embedding = fit(texts, embed_dim=embed_dim)
    together = embedding.transform(texts)
    assert together.dtype == np.float32
    assert np.array_equal(np.vstack([embedding.transform([text]) for text in texts]), together)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_a_small_collection_gets_as_many_dimensions_as_it_has_songs(num, caplog):
    texts, _ = songs(num)
    with caplog.at_level("INFO"):
        vectors = fit(texts, embed_dim=16).transform(texts)
    assert vectors.shape == (num, num)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert f"only {num} songs" in caplog.text


def test_a_collection_of_equal_lyrics_is_one_point():
    vectors = fit(["la la land"] * 10, embed_dim=4).transform(["la la land"] * 3)
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_a_large_vocabulary_is_limited_to_the_most_frequent_terms():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.zipf(1.3, 200)) for _ in range(50)]
    embedding = fit(texts, embed_dim=0, max_features=100)
    assert [len(block.terms) for block in embedding.blocks] == [100, 100]
    assert "w1" in embedding.blocks[0].terms


def test_a_large_collection_is_fitted_on_an_evenly_spaced_sample(monkeypatch):
    monkeypatch.setattr(lyrics, "MAX_FIT", 3)
    embedding = fit(["one", "two", "three", "four", "five"], embed_dim=0)
    assert embedding.blocks[0].terms == ("five", "one", "three")


@pytest.mark.parametrize("script", SCRIPTS)
def test_songs_of_a_script_are_nearest_to_songs_of_that_script(script):
    texts = [text for group in SCRIPTS.values() for text in group]
    names = [name for name, group in SCRIPTS.items() for _ in group]
    embedding = fit(texts, embed_dim=0)
    vectors = embedding.transform(texts)
    for index in [i for i, name in enumerate(names) if name == script]:
        similarity = vectors @ vectors[index]
        similarity[index] = -1
        assert similarity.max() > 0.02, "songs share no tokens"
        assert names[similarity.argmax()] == script


@pytest.mark.parametrize("seed", range(3))
def test_songs_cluster_by_language_without_labels(seed):
    texts, languages = songs()
    vectors = fit(texts, embed_dim=16).transform(texts)
    clusters = KMeans(3, n_init=10, random_state=seed).fit_predict(vectors)
    assert adjusted_rand_score(languages, clusters) > 0.95


def test_lyrics_that_share_nothing_with_the_vocabulary_are_zeros():
    vectors = fit(["hello world", "hello night"], embed_dim=2).transform(["世界"])
    np.testing.assert_array_equal(vectors, np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("texts", [[], ["", "[Instrumental]"]])
def test_no_lyrics_at_all_are_one_clear_error(texts):
    with pytest.raises(UserError, match="no track has lyrics"):
        fit(texts)


@pytest.mark.parametrize("damage", ["missing", "truncated", "another file", "format", "shape"])
def test_a_damaged_embedding_is_one_clear_error(tmp_path, damage):
    path = tmp_path / "lyrics.json"
    fit(songs(6)[0], embed_dim=2).save(path)
    values = json.loads(path.read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "another file":
        path.write_text("[1, 2]")
    else:
        values["format"] = 99 if damage == "format" else values["format"]
        values["components"]["shape"][0] += damage == "shape"
        path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"lyrics\.json"):
        load(path)
