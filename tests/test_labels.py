import pytest

from vae_jax import labels, languages


@pytest.mark.parametrize(
    "cells",
    [
        ["Rock", "rock", "ROCK", " Rock ", "Rock;Pop", "rock | pop", "Ｒock", "Rock"],
        ["Hip  Hop", "Hip Hop", "hip hop", "Hip\u00a0Hop", "Hip Hop;;"],
        ["Drum &amp; Bass", "Drum & Bass", "drum & bass", "Drum & Bass"],
    ],
)
def test_spellings_and_further_values_do_not_make_another_label(cells):
    found = labels.fold(cells, "genre").labels
    assert len({*found.values()}) == 1
    assert found[cells[-1]] == max(found.values(), key=[" ".join(c.split()) for c in cells].count)


def test_the_most_frequent_spelling_is_shown_and_the_first_where_two_are():
    assert {*labels.fold(["a", "A", "A"]).labels.values()} == {"A"}
    assert {*labels.fold(["b", "B"]).labels.values()} == {"b"}


@pytest.mark.parametrize("cell", ["", "nan", "None", " N/A ", "NULL", ";", "nan; "])
def test_words_that_stand_for_no_value_are_none(cell):
    assert labels.fold([cell, "rock"]).labels[cell] == ""


def test_slashes_and_commas_are_part_of_a_label():
    cells = ["Pop/Rock", "Folk, World, & Country", "R&B"]
    assert [*labels.fold(cells).labels.values()] == cells


@pytest.mark.parametrize(
    "names",
    [
        ["en", "eng", "English", "ENGLISH", "en-US", "en_GB"],
        ["de", "deu", "ger", "German", "Deutsch", "de-AT"],
        ["zh", "zho", "chi", "Chinese", "中文", "zh-Hans-CN"],
        ["fr", "fre", "fra", "Français", "french"],
        ["pt", "por", "pt-BR", "Português"],
        ["vi", "Tiếng Việt"],
        ["haw", "Hawaiian"],
    ],
)
def test_codes_and_names_of_a_language_are_one(names):
    assert {languages.code(name) for name in names} == {names[0]}
    assert len({*labels.fold([*names, "xx"], "language").labels.values()}) == 2
    assert len({*labels.fold([*names, "ja"], "label").labels.values()}) == 2


def test_words_that_happen_to_be_codes_stay_labels_among_others():
    cells = ["no", "yes", "it", "Italian"]
    assert [*labels.fold(cells, "label").labels.values()] == cells
    assert languages.code("rock") is languages.code("") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hip-Hop", "Hip Hop"),
        ("Electronic", "Electronica"),
        ("R&B", "R and B"),
        ("Reggae", "Reggaes"),
    ],
)
def test_labels_that_may_be_one_are_named(one, other):
    assert labels.fold([one, "Jazz", other]).alike() == [(one, other)]


@pytest.mark.parametrize(
    ("one", "other"),
    [("1980s", "1990s"), ("House", "Mouse"), ("pop", "rap"), ("Disco 1", "Disco 2"), ("?", "!")],
)
def test_labels_that_are_two_are_not(one, other):
    assert labels.fold([one, other]).alike() == []


def test_what_was_folded_is_told_by_kind():
    found = labels.fold(["Rock", "Rock", "rock", "Rock;Pop", "nan", "Jazz"])
    assert [*found.changed()] == [
        ("rock", "Rock", "spelling"),
        ("Rock;Pop", "Rock", "several values"),
        ("nan", "", "missing"),
    ]
