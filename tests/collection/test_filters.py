import numpy as np
import pytest

from vae_jax.collection.filters import at_most_each, fitting
from vae_jax.errors import UserError

COLUMNS = {
    "genre": ["Jazz", "rock", "jazz", ""],
    "year": ["1990", "2001", "unknown", "1959"],
    "a b": ["x", "y", "z", "x"],
    "moods": ["calm; Sad", "sad", "", "happy|calm"],
}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("", [1, 1, 1, 1]),
        ("genre=jazz", [1, 0, 1, 0]),
        ("genre!=jazz", [0, 1, 0, 1]),
        ("genre=", [0, 0, 0, 1]),
        ("year>=1990", [1, 1, 0, 0]),
        ("year>1990", [0, 1, 0, 0]),
        (" year <= 1990 ,", [1, 0, 0, 1]),
        ("genre=jazz,year<2000", [1, 0, 0, 0]),
        ("a b=x", [1, 0, 0, 1]),
        ("moods=sad", [1, 1, 0, 0]),
        ("moods!=calm", [0, 1, 1, 0]),
        ("moods=calm; sad", [1, 0, 0, 0]),
    ],
)
def test_tracks_that_meet_all_conditions_are_chosen(conditions, expected):
    np.testing.assert_array_equal(fitting(COLUMNS, conditions), np.array(expected, bool))


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ("jazz", "cannot read 'jazz'"),
        ("style=jazz", "no column 'style'; it has genre, year, a b"),
        ("year>=many", ">= compares numbers, and 'many' is none"),
    ],
)
def test_a_condition_that_cannot_be_met_is_refused(conditions, said):
    with pytest.raises(UserError, match=said):
        fitting(COLUMNS, conditions)


def test_the_first_tracks_of_each_artist_are_kept_and_all_without_one():
    artists = ["A", "a", "B", "", "A", ""]
    assert at_most_each(artists, [5, 4, 3, 2, 1, 0], 1) == [5, 4, 3, 2]
