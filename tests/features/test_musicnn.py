"""MusiCNN against the original; `musicnn.npz` holds what the package's own graph gives.

TensorFlow 2.15 ran `musicnn.models.define_model` of musicnn 0.1.0 on the patches of `PATCHES`: with
the published weights of both models, and with those of `made_up`. (The package's `extractor` would
have given the first patch's description for all patches.)
"""

import shutil
from pathlib import Path

import jax
import librosa
import numpy as np
import pytest
from flax import traverse_util

from tests.audio_files import music
from tests.conftest import write_collection
from tests.tf_bundle import uniform
from vae_jax import api, compare, manifest, preflight
from vae_jax.clustering import metrics_file
from vae_jax.config import get_config
from vae_jax.errors import UserError
from vae_jax.features import extract, musicnn, pool
from vae_jax.plots import figures
from vae_jax.records.reader import Records
from vae_jax.run import Run
from vae_jax.storage import files

ORIGINAL = files.read_npz(Path(__file__).with_suffix("").with_name("musicnn.npz"))
DOWNLOADED = Path(__file__).parents[2] / "data" / "musicnn"
PATCHES = uniform((2, 187, 96), 1, 0.0, 3.0)
RATE = 16000
MARK = "features trained elsewhere with tags"


def made_up():
    """Return weights of the network's shapes, which differ for every variable."""
    weights = {}
    for seed, (name, shape) in enumerate(sorted(musicnn.shapes().items()), 10):
        if name.endswith(("gamma", "variance")):
            weights[name] = uniform(shape, seed, 0.5, 1.5)
        elif name.endswith("kernel"):
            scale = np.float32(1.7 / np.sqrt(np.prod(shape[:-1])))
            weights[name] = uniform(shape, seed) * scale
        else:
            weights[name] = uniform(shape, seed, -0.2, 0.2)
    return weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folder of a file of made-up weights."""
    folder = tmp_path_factory.mktemp("data") / "musicnn"
    files.write_npz(folder / "MSD_musicnn.npz", **made_up(), license="none", source="made up")
    return folder


@pytest.fixture
def weights(saved, monkeypatch):
    """Let the made-up weights pass for those of a model; return their folder."""
    monkeypatch.setitem(musicnn.DIGESTS, "MSD_musicnn", musicnn.digest(made_up()))
    return saved


def apply(weights, patches=PATCHES):
    variables = {"params": traverse_util.unflatten_dict(weights, sep="/")}
    return np.asarray(jax.jit(musicnn.MusiCnn().apply)(variables, patches))


def feature(folder, **changes):
    config = get_config().feature
    config.update(name="musicnn", musicnn_dir=str(folder), num_workers=1, duration=9.0)
    config.update(changes)
    return config.to_dict()


def described(waveform, folder, **changes):
    settings = feature(folder, **changes)
    return musicnn.audio_feature(settings, musicnn.load(settings))(waveform)


def test_the_network_computes_what_the_original_does():
    original = ORIGINAL["formula"]  # three times as wide as with the published weights
    np.testing.assert_allclose(apply(made_up()), original, rtol=0, atol=1e-5 * original.std())


@pytest.mark.parametrize("model", musicnn.DIGESTS)
def test_with_the_published_weights_it_computes_what_the_original_does(model):
    if not (DOWNLOADED / f"{model}.npz").exists():
        pytest.skip(f"{DOWNLOADED} lacks {model}.npz: vae-jax download musicnn --model={model}")
    weights = musicnn.load({"musicnn": model, "musicnn_dir": DOWNLOADED})
    np.testing.assert_allclose(apply(weights), ORIGINAL[model], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seconds", [3.0, 1.3])
def test_what_the_network_sees_is_librosas_mel_spectrogram_with_the_originals_settings(seconds):
    waveform = music(seconds, RATE)[:, 0]
    power = librosa.feature.melspectrogram(
        y=waveform, sr=RATE, n_fft=512, hop_length=256, n_mels=96
    )
    expected = np.log10(10000 * power.T + 1)
    np.testing.assert_allclose(musicnn.log_mel(waveform), expected, rtol=0, atol=1e-5)


def test_patches_of_three_seconds_lie_side_by_side_and_the_rest_is_left_out(weights):
    waveform = music(7.0, RATE)[:, 0]
    frames = np.asarray(musicnn.log_mel(waveform))
    cut = np.asarray(musicnn.patches(np.pad(waveform, (0, 2 * RATE)), len(waveform)))
    assert musicnn.num_patches(len(waveform)) == 2
    np.testing.assert_allclose(cut[:2], frames[: 2 * 187].reshape(2, 187, 96), atol=1e-5)
    whole = described(waveform, weights)
    assert (whole.shape, whole.dtype) == ((2, 200), np.float32)
    np.testing.assert_allclose(whole, apply(made_up(), cut[:2]), atol=1e-4)


def test_a_short_sound_is_repeated_to_fill_a_patch(weights):
    waveform = music(1.0, RATE)[:, 0]
    frames = np.asarray(musicnn.log_mel(waveform))
    (cut,) = musicnn.patches(np.pad(waveform, (0, RATE)), len(waveform))
    np.testing.assert_allclose(cut, np.resize(frames, (187, 96)), atol=1e-5)
    assert described(waveform, weights).shape == (1, 200)


def test_windows_are_described_like_waveforms_of_their_own(weights):
    windows = np.stack([music(3.0, RATE, seed=seed)[:, 0] for seed in (1, 2)])
    found = described(windows, weights, excerpt="spread", num_windows=3)
    expected = [described(window, weights)[0] for window in windows]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("in_process")
def test_records_hold_the_vectors_of_a_tracks_segments(tmp_path, weights):
    tracks = manifest.read(write_collection(tmp_path / "music", 3))
    extract.extract(tracks, feature(weights), tmp_path / "records")
    stored = Records(tmp_path / "records")
    assert stored.arrays["features"].shape == (None, 200)
    assert stored.arrays["features"].is_segments
    assert stored.num_frames.tolist() == [1, 1, 1]


def test_an_accelerator_computes_them_in_the_process_that_has_it(tmp_path, weights, monkeypatch):
    tracks = manifest.read(write_collection(tmp_path / "music", 3))
    settings = feature(weights, shard_size=2)
    for name in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda name=name: name)
        run = pool.run_here if name == "cpu" else None  # a pool would fail
        monkeypatch.setattr(pool, "run", lambda jobs, processes, count, run=run: run(jobs, count))
        extract.extract(tracks, settings, tmp_path / name)
    ours, theirs = (Records(tmp_path / name).load(range(3))["features"] for name in ("cpu", "gpu"))
    np.testing.assert_allclose(np.stack(ours), np.stack(theirs), atol=1e-5)


def test_without_the_weights_a_run_is_refused_in_a_sentence_that_names_the_command(
    collection, tmp_path
):
    config = get_config()
    config.manifest, config.model.name, config.feature.name = str(collection), "track", "musicnn"
    config.feature.musicnn_dir = str(tmp_path / "nothing")
    command = "vae-jax download musicnn --model=MSD_musicnn --data_dir=.*nothing"
    with pytest.raises(UserError, match=f"{command}`, which fetches .* Python Package Index"):
        preflight.check(Run(config, tmp_path / "out"), ["features"])
    preflight.check(Run(config, tmp_path / "out"), ["cluster"])


@pytest.mark.parametrize("fault", ["bit", "cut", "other", "text"])
def test_another_or_a_damaged_file_is_refused_by_its_hash(tmp_path, weights, fault):
    path = tmp_path / "MSD_musicnn.npz"
    content = bytearray((weights / path.name).read_bytes())
    content[len(content) // 2] ^= 1
    if fault == "other":
        files.write_npz(path, **made_up() | {"dense/bias": np.ones(200, np.float32)})
    else:
        path.write_bytes({"bit": content, "cut": content[:9999], "text": b"weights"}[fault])
    with pytest.raises(UserError, match=r"not the weights of MSD_musicnn .*: delete it, then"):
        musicnn.load(feature(tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_every_row_and_plot_of_a_run_says_who_trained_the_features(
    collection, tmp_path, weights, monkeypatch
):
    titles = []
    save = figures.save
    monkeypatch.setattr(
        figures, "save", lambda figure, path: (_note(figure, titles), save(figure, path))
    )
    monkeypatch.chdir(tmp_path)
    shutil.copytree(weights, "data/musicnn")
    for name in ("track:musicnn", "mlp"):
        settings = {"manifest": str(collection), "feature.name": "musicnn", "train.num_steps": 3}
        settings |= {"cluster.num_clusters": 3, "visualize.method": "pca", "model.latent_dim": 2}
        settings |= {"model.prior": "normal", "train.batch_size": 8}
        run = api.train(name, tmp_path / "results" / name[:5], settings)
        rows = metrics_file.read(run.outdir / metrics_file.NAME)
        assert {row["feature"] for row in rows} == {f"musicnn ({MARK})"}
        assert MARK in compare.table(rows)
        assert run.latents.shape == (12, 2)
    assert len(titles) > 10
    assert all(MARK in title for title in titles)
    new = api.Model.load(run.outdir).encode([str(collection.parent / "audio" / "3.wav")])
    np.testing.assert_allclose(new.mean[0], run.latents[3], atol=1e-4)


def _note(figure, titles):
    texts = [axes.get_title(loc="left") for axes in figure.axes]
    titles.append(" ".join([figure.get_suptitle(), *texts]))
