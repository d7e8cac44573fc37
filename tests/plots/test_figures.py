import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from vae_jax.plots import figures, palette
from vae_jax.plots.projections import Projection

pytestmark = pytest.mark.filterwarnings("error")
STRANGE = [
    "日本語の歌",
    "العربية",
    "עברית",
    "한국어",
    "$uicideboy$",
    r"$\bad{$",
    "_hidden",
    "🎵",
    "%s",
]


def view(n: int, method: str = "umap") -> Projection:
    coordinates = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    return Projection(method, coordinates, ("UMAP 1", "UMAP 2"))


def legend_texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_a_scatter_plot_draws_every_track_once_in_its_groups_color():
    values = ["a"] * 30 + ["b"] * 12 + [""] * 3
    projection = view(45)
    figure = figures.scatter(projection, palette.by_value(values), "genre", "the title")
    (axes,) = figure.axes
    drawn = {
        tuple(offset): matplotlib.colors.to_hex(color)
        for points in axes.collections
        for offset, color in zip(points.get_offsets(), points.get_facecolors(), strict=True)
    }
    first, second, missing = palette.STYLES[0], palette.STYLES[1], palette.MISSING
    expected = [first[0]] * 30 + [second[0]] * 12 + [missing[0]] * 3
    given = zip(map(tuple, projection.coordinates), map(str.lower, expected), strict=True)
    assert drawn == dict(given)
    assert sum(len(points.get_offsets()) for points in axes.collections) == 45


def test_no_group_hides_those_drawn_before_it():
    """Every tenth of what is drawn holds tracks of all groups, of one marker or of several."""
    for num_groups in (4, len(palette.STYLES)):
        n = 200 * num_groups
        groups = palette.by_value([f"{i % num_groups:02}" for i in range(n)])
        axes = figures.scatter(view(n), groups, "x", "y").axes[0]
        colors = np.concatenate([points.get_facecolors() for points in axes.collections])
        for tenth in np.array_split(colors, 10):
            assert len(np.unique(tenth, axis=0)) == num_groups


def test_a_scatter_plot_has_a_legend_and_axes_and_a_title():
    values = ["a"] * 30 + ["b"] * 12 + [""] * 3
    figure = figures.scatter(view(45), palette.by_value(values), "genre", "the title")
    (axes,) = figure.axes
    assert legend_texts(figure) == ["a (30)", "b (12)", "not given (3)"]
    assert axes.get_legend().get_title().get_text() == "genre"
    assert axes.get_title(loc="left") == "the title"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("UMAP 1", "UMAP 2")


def test_no_script_or_special_character_in_a_label_is_trouble(tmp_path):
    figure = figures.scatter(view(len(STRANGE)), palette.by_value(STRANGE), "$x$", r"$\bad{$")
    assert {text.removesuffix(" (1)") for text in legend_texts(figure)} == set(STRANGE)
    figures.save(figure, tmp_path / "strange.png")
    groups = palette.by_value(STRANGE)
    figures.save(figures.heatmap(groups, groups, "$x", "_"), tmp_path / "heatmap.png")


def test_a_legend_beyond_the_axes_is_not_clipped(tmp_path):
    groups = palette.by_value([f"{i:02} {'w' * 27}" for i in range(40)])
    figure = figures.scatter(view(40), groups, "artist", "title")
    figures.save(figure, tmp_path / "plot.png")
    picture = imread(tmp_path / "plot.png")[..., :3]
    border = np.concatenate([picture[:3].ravel(), picture[-3:].ravel(), picture[:, -3:].ravel()])
    assert (border == 1).all()
    assert picture.shape[1] > figures.DPI * figure.get_figwidth()


def test_saving_leaves_the_settings_of_matplotlib_as_they_were(tmp_path):
    before = dict(matplotlib.rcParams)
    figure = figures.scatter(view(5), palette.by_value(["a"] * 5), "x", "y")
    figures.save(figure, tmp_path / "x.png")
    assert dict(matplotlib.rcParams) == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_many_points_are_small_and_transparent_and_few_are_large():
    few, many = (
        figures.scatter(view(n), palette.by_value(["a"] * n), "x", "y").axes[0].collections[0]
        for n in (50, 100_000)
    )
    assert few.get_sizes()[0] > 5 * many.get_sizes()[0]
    assert few.get_alpha() > 2 * many.get_alpha()


def test_a_heatmap_counts_tracks_and_its_colors_are_shares_of_the_cluster():
    clusters = palette.by_cluster(np.array([0, 0, 0, 1, 1, -1]))
    genres = palette.by_value(["rock", "rock", "jazz", "jazz", "jazz", ""])
    axes = figures.heatmap(clusters, genres, "genre", "title").axes[0]
    columns = [text.get_text() for text in axes.get_xticklabels()]
    assert columns == ["rock (2)", "jazz (3)", "not given (1)"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0 (3)", "1 (2)", "noise (1)"]
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 0, 1]]
    )
    cells = {(text.get_position()[::-1]): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "2", (0, 1): "1", (1, 1): "2", (2, 2): "1"}


def test_silhouettes_are_sorted_in_each_cluster_with_their_mean():
    values = np.array([0.1, 0.5, 0.3, -0.22, np.nan, np.nan])
    clusters = palette.by_cluster(np.array([0, 0, 0, 1, 1, -1]))
    axes = figures.silhouette(values, clusters, "title").axes[0]
    bars = [patch.get_data().values.tolist() for patch in axes.patches]
    assert bars == [[0.5, 0.3, 0.1], [-0.22]]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0 (3)", "1 (2)"]
    assert axes.texts[0].get_text().strip() == "mean 0.17"


def test_silhouettes_of_many_tracks_are_drawn_as_a_sample_of_the_sorted_ones():
    values = np.linspace(1, -1, 50_001)
    clusters = palette.by_cluster(np.zeros(len(values), int))
    (patch,) = figures.silhouette(values, clusters, "title").axes[0].patches
    drawn, edges, _ = patch.get_data()
    assert len(drawn) == figures.MOST_BARS
    assert edges[-1] == len(values)
    np.testing.assert_allclose(drawn, np.linspace(1, -1, len(drawn)), atol=1e-3)


def test_training_and_held_out_curves_of_a_metric_share_a_panel():
    steps, values = np.array([1, 2, 3]), np.array([3.0, 2.0, 1.0])
    curves = {
        "train/loss": (steps, values),
        "eval/loss": (steps[::2], values[::2]),
        "eval/active_units": (steps, values),
        "train/contrastive_loss": (steps, values),
    }
    figure = figures.training_curves(curves, "Training")
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["loss: negative ELBO (nats)", "active latent units", "contrastive loss"]
    loss = panels["loss: negative ELBO (nats)"]
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), np.stack([steps, values], axis=1))
    np.testing.assert_array_equal(loss.lines[1].get_xdata(), [1, 3])


def test_characters_that_no_font_has_are_written_in_latin_letters():
    drawn = {ord(c) for c in "é"}
    assert figures.readable("café 中文 ♫\n🎵", drawn) == "café ZhongWen #\n:musical_note:"
    assert figures.readable("中文", {ord("中"), ord("文")}) == "中文"
    assert figures._characters() >= {ord(c) for c in "éßж"}


def test_names_of_groups_stand_in_their_midst(tmp_path):
    places = np.array([[0, 0], [2, 0], [9, 9], [9, 11], [30, 30]], np.float32)
    projection = Projection("umap", places, ("UMAP 1", "UMAP 2"))
    groups = palette.by_cluster(np.array([0, 0, 1, 1, -1]), {0: "slow", 1: "fast $x_1$"})
    figure = figures.scatter(projection, groups, "cluster", "title", named=True)
    written = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert written == {"0 slow": (1, 0), "1 fast $x_1$": (9, 10)}
    figures.save(figure, tmp_path / "figure.png")
