import numpy as np
import pytest

from vae_jax import files, plots, reconstructions
from vae_jax.errors import UserError
from vae_jax.reconstructions import Reconstructions, reconstruction_figure, traversal_figure

pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(0)
HERTZ = 700 * (10 ** (np.linspace(0, 2840, 64) / 2595) - 1)  # mel bands up to 8 kHz


def spectrograms(n: int = 3) -> Reconstructions:
    inputs = RNG.normal(-40, 10, size=(n, 100, 64)).astype(np.float32)
    traversals = RNG.normal(-40, 10, size=(2, 5, 100, 64))
    ids = np.array([f"t{i}" for i in range(n)])
    return Reconstructions(ids, inputs, inputs + 2, traversals, 0.02, HERTZ)


def vectors(n: int, size: int = 40) -> Reconstructions:
    inputs = RNG.normal(size=(n, size))
    traversals = RNG.normal(size=(5, 7, size))
    return Reconstructions(np.array([f"t{i}" for i in range(n)]), inputs, inputs / 2, traversals)


def panels(figure) -> list:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def test_a_spectrogram_is_beside_its_reconstruction_on_the_same_colors_in_hz_and_seconds(tmp_path):
    data = spectrograms()
    figure = reconstruction_figure(data, "title")
    left, right, *_, last, _ = panels(figure)
    np.testing.assert_array_equal(left.images[0].get_array(), data.inputs[0].T)
    np.testing.assert_array_equal(right.images[0].get_array(), data.outputs[0].T)
    assert left.images[0].norm is right.images[0].norm
    assert left.get_title(loc="left") == "t0: input"
    assert right.get_title(loc="left") == "output, RMS error 2.0 dB"
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
    plots.save(figure, tmp_path / "figure.png")


def test_without_hop_and_frequencies_axes_count_frames_and_features():
    data = spectrograms()
    figure = reconstruction_figure(Reconstructions(data.ids, data.inputs, data.outputs), "title")
    *_, last, _ = panels(figure)
    assert (last.get_xlabel(), last.get_ylabel()) == ("frame", "feature")


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_vectors_are_drawn_as_pairs_of_lines_for_the_first_tracks(n, tmp_path):
    data = vectors(n)
    figure = reconstruction_figure(data, "title")
    assert len(figure.axes) == min(n, 6)
    before, after = figure.axes[0].lines
    np.testing.assert_array_equal(before.get_ydata(), data.inputs[0])
    np.testing.assert_array_equal(after.get_ydata(), data.outputs[0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["input", "output"]
    plots.save(figure, tmp_path / "figure.png")


@pytest.mark.parametrize("data", [spectrograms(), vectors(3)], ids=["spectrograms", "vectors"])
def test_every_value_of_every_latent_dimension_is_decoded_in_the_traversals(data, tmp_path):
    figure = traversal_figure(data, "title")
    drawn = [line.get_ydata() for axes in panels(figure) for line in axes.lines]
    drawn += [image.get_array().T for axes in panels(figure) for image in axes.images]
    np.testing.assert_array_equal(drawn, data.traversals.reshape(-1, *data.inputs.shape[1:]))
    plots.save(figure, tmp_path / "figure.png")


def test_reading_gives_back_what_was_written_and_names_what_is_missing(tmp_path):
    data = spectrograms()
    path = tmp_path / "reconstructions.npz"
    files.write_npz(path, ids=data.ids, inputs=data.inputs, outputs=data.outputs, hop_seconds=0.02)
    again = reconstructions.read(path)
    np.testing.assert_array_equal(again.outputs, data.outputs)
    assert (again.hop_seconds, again.traversals, again.mel_frequencies) == (0.02, None, None)
    files.write_npz(path, ids=data.ids, inputs=data.inputs)
    with pytest.raises(UserError, match="no array 'outputs'"):
        reconstructions.read(path)
