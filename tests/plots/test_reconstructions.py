import numpy as np
import pytest

from vae_jax.config import get_config
from vae_jax.embedding.reconstructions import Reconstructions
from vae_jax.plots import figures
from vae_jax.plots.reconstructions import FeatureAxis, reconstruction_figure, traversal_figure

pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(0)
HERTZ = 700 * (10 ** (np.linspace(0, 2840, 64) / 2595) - 1)  # mel bands up to 8 kHz


def spectrograms(n: int = 3, mel: bool = True) -> Reconstructions:
    inputs = RNG.normal(-40, 10, size=(n, 100, 64)).astype(np.float32)
    traversals = RNG.normal(-40, 10, size=(2, 5, 100, 64))
    return make(inputs, inputs + 2, traversals, 0.02, HERTZ if mel else None)


def vectors(n: int, size: int = 40) -> Reconstructions:
    inputs = RNG.normal(size=(n, size))
    return make(inputs, inputs / 2, RNG.normal(size=(5, 7, size)))


def make(inputs, outputs, traversals, *axes) -> Reconstructions:
    ids = np.array([f"t{i}" for i in range(len(inputs))])
    size = inputs.shape[-1]
    center, scale = RNG.normal(size=size), RNG.uniform(1, 2, size=size)
    dimensions = 10 + np.arange(len(traversals))
    values = np.linspace(-1, 1, traversals.shape[1]) * dimensions[:, None]
    return Reconstructions(
        ids, inputs, outputs, center, scale, traversals, dimensions, values, *axes
    )


def panels(figure) -> list:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def test_a_spectrogram_is_beside_its_reconstruction_on_the_same_colors_in_hz_and_seconds(tmp_path):
    data = spectrograms()
    figure = reconstruction_figure(data, "title")
    left, right, *others = panels(figure)
    np.testing.assert_array_equal(left.images[0].get_array(), data.inputs[0].T)
    np.testing.assert_array_equal(right.images[0].get_array(), data.outputs[0].T)
    assert left.images[0].norm is right.images[0].norm
    assert left.get_title(loc="left") == "t0"
    assert right.get_title(loc="left") == "output, RMS error 2.00 dB"
    assert len(others) == 4
    last = others[2]  # the third track is below the first
    assert (last.get_xlabel(), left.get_ylabel()) == ("time (s)", "frequency (Hz)")
    seconds = {
        text.get_text(): x
        for text, x in zip(last.get_xticklabels(), last.get_xticks(), strict=True)
    }
    assert seconds["0.8"] == 39.5  # the left edge of frame 40
    bands = {
        text.get_text(): y
        for text, y in zip(left.get_yticklabels(), left.get_yticks(), strict=True)
    }
    assert np.interp(bands["1,000"], np.arange(64), HERTZ) == pytest.approx(1000)
    figures.save(figure, tmp_path / "figure.png")


def test_frames_of_other_features_are_drawn_in_standard_deviations():
    data = spectrograms(n=1, mel=False)
    figure = reconstruction_figure(data, "title")
    left, right = panels(figure)
    standardised = (data.inputs[0] - data.center) / data.scale
    np.testing.assert_array_equal(left.images[0].get_array(), standardised.T)
    assert "dB" not in right.get_title(loc="left")
    assert (left.get_xlabel(), left.get_ylabel()) == ("time (s)", "feature")


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_vectors_are_drawn_as_pairs_of_lines_in_standard_deviations(n, tmp_path):
    data = vectors(n)
    figure = reconstruction_figure(data, "title")
    assert len(figure.axes) == n
    before, after = figure.axes[0].lines
    np.testing.assert_array_equal(before.get_ydata(), (data.inputs[0] - data.center) / data.scale)
    np.testing.assert_array_equal(after.get_ydata(), (data.outputs[0] - data.center) / data.scale)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["input", "output"]
    figures.save(figure, tmp_path / "figure.png")


def test_traversals_of_vectors_show_every_value_and_name_the_dimension(tmp_path):
    data = vectors(3)
    figure = traversal_figure(data, "title")
    drawn = [line.get_ydata() for axes in panels(figure) for line in axes.lines]
    standardised = (data.traversals - data.center) / data.scale
    np.testing.assert_array_equal(drawn, standardised.reshape(-1, data.inputs.shape[1]))
    assert panels(figure)[1].get_title(loc="left") == "latent 11 from -11.00 to 11.00"
    figures.save(figure, tmp_path / "figure.png")


def test_traversals_of_spectrograms_show_the_change_from_the_middle_value(tmp_path):
    data = spectrograms()
    figure = traversal_figure(data, "title")
    drawn = [axes.images[0].get_array().T for axes in panels(figure)]
    changes = (data.traversals - data.traversals[:, [2]])[:, [0, 1, 3, 4]]
    np.testing.assert_array_equal(drawn, changes.reshape(-1, 100, 64))
    titles = [axes.get_title(loc="left") for axes in panels(figure)]
    assert titles[:5] == ["latent 10 at -10.00", "-5.00", "5.00", "10.00", "latent 11 at -11.00"]
    figures.save(figure, tmp_path / "figure.png")


def test_a_collapsed_dimension_is_drawn_as_no_change(tmp_path):
    data = spectrograms()
    data.traversals[:] = data.traversals[:, :1]
    figures.save(traversal_figure(data, "title"), tmp_path / "figure.png")


def test_features_and_dimensions_have_names():
    feature = get_config().feature
    assert [size for _, size in FeatureAxis.of(feature, 40).parts] == [20, 20]
    assert FeatureAxis.of(feature, 17).name == "feature"
    axis, names = FeatureAxis.of(feature, 40), {11: "faster, darker"}
    figure = traversal_figure(vectors(3), "title", axis, names)
    titles = [axes.get_title(loc="left") for axes in panels(figure)]
    assert titles[1] == "latent 11 (faster, darker) from -11.00 to 11.00"
    ticks = [text.get_text() for text in panels(figure)[-1].get_xticklabels()]
    assert ticks == ["mean\nMFCC 0 to 19", "deviation\nMFCC 0 to 19"]
    figure = traversal_figure(spectrograms(), "title", axis, names)
    assert panels(figure)[4].get_title(loc="left") == "faster, darker\nlatent 11 at -11.00"
    feature.update(name="mfcc_frames")
    assert FeatureAxis.of(feature, 20).name == "MFCC 0 to 19"
