from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from vae_jax.plots.palette import MISSING, NOISE, OTHER, STYLES, by_cluster, by_value

# Linear RGB as seen without one kind of cone (Machado, Oliveira and Fernandes 2009).
VISION = {
    "full": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def lab(color: str, vision: str) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISION[vision] @ linear, 0, 1)
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ seen
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 1e-4))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_any_two_groups_differ_in_marker_or_clearly_in_color_however_colors_are_seen(vision):
    styles = [*STYLES, OTHER, MISSING, NOISE]
    assert len(STYLES) == 20
    for (color, marker), (other_color, other_marker) in combinations(styles, 2):
        if marker == other_marker:
            assert np.linalg.norm(lab(color, vision) - lab(other_color, vision)) > 15


def test_clusters_are_in_order_of_their_number_with_noise_last_in_light_grey():
    groups = by_cluster(np.array([10, -1, 2, 10, 0]))
    assert [group.label for group in groups] == ["0 (1)", "2 (1)", "10 (2)", "noise (1)"]
    assert (groups[-1].color, groups[-1].marker) == NOISE
    assert [group.muted for group in groups] == [False, False, False, True]


def test_values_are_in_order_with_missing_ones_last_and_cover_every_track_once():
    groups = by_value(["rock", "", "folk", "rock", "noise"])
    assert [group.label for group in groups] == [
        *("folk (1)", "noise (1)", "rock (2)", "not given (1)"),
    ]
    assert sorted(np.concatenate([group.rows for group in groups])) == [0, 1, 2, 3, 4]


def test_beyond_twenty_values_the_rarest_share_one_group():
    values = [f"{i:02}" for i in range(25) for _ in range(1 if i < 5 else 3)]
    groups = by_value(values)
    assert len(groups) == 21
    assert groups[-1].label == "5 others (5)"
    assert (groups[-1].color, groups[-1].marker) == OTHER
    assert groups[0].name == "05"


def test_long_values_and_line_breaks_are_shortened_in_the_label_alone():
    (group,) = by_value(["progressive\nrock " + "x" * 100])
    assert group.label == "progressive rock xxxxxxxxxxxxxx… (1)"


def test_a_cluster_has_the_same_colour_in_every_picture():
    whole = {group.name: group.color for group in by_cluster(np.array([0, 1, 2, 5, 2, -1]))}
    part = {group.name: group.color for group in by_cluster(np.array([1, 5, 5, -1]))}
    assert part.items() <= whole.items()
    assert len({*whole.values()}) == 5
