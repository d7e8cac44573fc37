import contextlib
import json
import math

import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import config_flags

from vae_jax import config as config_lib
from vae_jax.errors import UserError
from vae_jax.models.declared import models_declared


def test_the_defaults_are_valid():
    config_lib.validate(config_lib.get_config())


def test_a_config_that_went_through_json_equals_the_original():
    config = config_lib.get_config()
    config.model.hidden_dims = (3, 4)
    config.cluster.eps = 0.5
    restored = config_lib.from_dict(json.loads(json.dumps(config_lib.to_dict(config))))
    assert restored.to_dict() == config.to_dict()
    assert isinstance(restored.model.hidden_dims, tuple)


def test_a_config_from_an_older_version_gets_the_defaults_of_newer_keys():
    values = config_lib.to_dict(config_lib.get_config())
    del values["visualize"]
    assert config_lib.from_dict(values).visualize.method == "umap"


def test_a_key_that_this_version_does_not_know_is_named():
    values = config_lib.to_dict(config_lib.get_config())
    values["model"]["mystery"] = 1
    with pytest.raises(UserError, match=r"config\.model\.mystery"):
        config_lib.from_dict(values)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model.name", "transformer", "one of conv2d, mlp"),
        ("model.latent_dim", 0, "1 or more"),
        ("train.learning_rate", float("nan"), "above 0"),
        ("train.learning_rate", -1.0, "above 0"),
        ("model.beta", float("inf"), "0 or more"),
        ("train.validation_fraction", 0.9, "from 0 to 0.5"),
        ("feature.sample_rate", 1, "from 1000"),
        ("baselines", ("pca", "tsne"), "a subset of"),
        ("model.hidden_dims", (8, -1), "positive whole numbers"),
        ("feature.fmin", 9e9, "must lie below"),
        ("feature.win_length", 4096, "n_fft"),
        ("feature.n_mfcc", 200, "n_mels"),
        ("seed", -1, "from 0"),
        ("cluster.num_clusters", 1, '2 or more, or "auto"'),
        ("cluster.num_clusters", 2.5, "a whole number"),
        ("cluster.num_clusters", True, "a whole number"),
        ("cluster.num_clusters", "banana", '"auto"'),
        ("cluster.num_clusters", None, "a whole number"),
        ("model.encoder", "cnn", "one of mlp, conv2d"),
        ("model.num_segments", -1, "1 or more"),
        ("model.num_segments", -3, "1 or more"),
        ("model.contrast", -0.5, "0 or more"),
        ("model.condition", "x" * 1001, "the name of a column"),
        ("cluster.label", "x" * 1001, "the name of a column"),
        ("visualize.color_by", ("label", "x" * 1001), "names of columns"),
        ("manifest", "http://host/metadata.csv", "a path, or a URL"),
        ("checkpoint_dir", "", "a folder"),
        ("visualize.min_dist", 1.5, "from 0 to 1"),
        ("visualize.perplexity", 2e3, "at most 1000"),
        ("visualize.n_neighbors", 1, "2 or more"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_it_must_be(key, value, expected):
    config = config_lib.get_config()
    section, _, name = key.rpartition(".")
    (config[section] if section else config)[name] = value
    with pytest.raises(UserError) as error:
        config_lib.validate(config)
    assert f"config.{key}" in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize(("written", "value"), [("5", 5), ("auto", "auto")])
def test_the_number_of_clusters_is_a_number_or_auto_on_the_command_line(written, value):
    flag_values = flags.FlagValues()
    argv = ["main", f"--config.cluster.num_clusters={written}"]
    holder = config_flags.DEFINE_config_dict(
        "config", config_lib.get_config(), flag_values=flag_values, sys_argv=argv
    )
    flag_values(argv)
    config_lib.validate(holder.value)
    assert holder.value.cluster.num_clusters == value
    values = json.loads(json.dumps(config_lib.to_dict(holder.value)))
    assert config_lib.from_dict(values).cluster.num_clusters == value


@pytest.mark.parametrize("name", config_lib.KEYS)
def test_every_key_has_a_meaning_and_a_rule_that_takes_its_default_and_refuses_something(name):
    key = config_lib.KEYS[name]
    assert key.meaning
    assert key.has_type(key.default)
    assert key.default is None or key.rule.accepts(key.default)
    absurd = {str: ["http://" * 1000], tuple: [("?" * 2000,) * 100], bool: [2], object: [-1]}
    assert not any(map(key.rule.accepts, absurd.get(key.value_type, [-1, math.nan])))


def test_the_config_has_the_keys_of_the_table_with_their_types_and_nothing_else():
    config = config_lib.get_config()
    assert set(config_lib._names(config)) == set(config_lib.KEYS)
    for name, key in config_lib.KEYS.items():
        section, _, last = name.rpartition(".")
        part = config[section] if section else config
        assert part[last] == key.default
        assert part.get_type(last) is key.value_type


def test_two_configs_share_nothing():
    changed = config_lib.get_config()
    changed.cluster.num_clusters, changed.cluster.eps, changed.train.num_steps = "auto", 0.5, 7
    assert config_lib.get_config().to_dict() != changed.to_dict()
    assert config_lib.get_config().cluster.num_clusters == 10
    assert config_lib.get_config().cluster.eps is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("model.latnet_dim", "did you mean config.model.latent_dim?"),
        ("latent_dim", "did you mean config.model.latent_dim?"),
        ("train.latent_dim", "did you mean config.model.latent_dim?"),
        ("feature.samplerate", "did you mean config.feature.sample_rate?"),
        ("cluster.k", "there are cluster.method, cluster.num_clusters,"),
        ("xyz", "there are name, manifest, seed,"),
    ],
)
def test_an_unknown_key_is_named_with_the_one_that_may_be_meant(written, expected):
    config = config_lib.get_config()
    section, _, last = written.rpartition(".")
    (config[section] if section else config)[last] = 3
    with pytest.raises(UserError, match="is not a config key") as error:
        config_lib.validate(config)
    assert expected in str(error.value)
    assert f"config.{written} " in str(error.value)


RULES = sorted(set(config_lib.KEYS) - {"baselines", "model.hidden_dims"})
NUMBERS = st.floats() | st.integers(-(2**70), 2**70)


@given(key=st.sampled_from(RULES), value=NUMBERS | st.text())
def test_any_value_of_the_right_type_is_accepted_or_refused_in_a_sentence(key, value):
    config = config_lib.get_config()
    section, _, name = key.rpartition(".")
    try:
        (config[section] if section else config)[name] = value
    except (TypeError, ValueError):
        return  # ConfigDict itself refuses the type
    with contextlib.suppress(UserError):
        config_lib.validate(config)


@pytest.mark.parametrize("key", ["condition", "deterministic", "ae"])
@pytest.mark.parametrize("name", ["multimodal", "track"])
def test_what_a_model_would_ignore_is_refused(name, key):
    config = config_lib.get_config()
    config.model.name = name
    config.feature.name = {"multimodal": "hybrid", "track": "mfcc_frames"}[name]
    if key == "ae":
        config.baselines = ("pca", "ae")
    else:
        config.model[key] = {"condition": "genre", "deterministic": True}[key]
    with pytest.raises(UserError, match=f"not for config.model.name={name}"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("model", "feature", "audio", "sees"),
    [
        ("mlp", "logmelspec", "mfcc", "mfcc, lyrics_tfidf, embedding, musicnn, hybrid"),
        ("mlp", "hybrid", "logmelspec", "hybrid with audio_feature=mfcc"),
        ("conv2d", "mfcc", "mfcc", "mfcc_frames, logmelspec"),
        ("conv2d", "hybrid", "logmelspec", "mfcc_frames, logmelspec"),
        ("track", "lyrics_tfidf", "mfcc", "mfcc_frames, logmelspec, embedding, musicnn"),
        ("multimodal", "mfcc", "mfcc", "hybrid"),
    ],
)
def test_a_model_that_cannot_see_the_features_is_refused_before_they_are_extracted(
    model, feature, audio, sees
):
    config = config_lib.get_config()
    config.model.name = model
    config.feature.update(name=feature, audio_feature=audio)
    with pytest.raises(UserError, match=rf"name={model} is not for .*name={feature}.*{sees}\."):
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("model", "feature"),
    [(model, name) for model, one in models_declared().items() for name in one.features],
)
def test_a_model_takes_the_features_that_it_sees(model, feature):
    config = config_lib.get_config()
    config.model.name, config.feature.name = model, feature
    config.feature.embedding = "clap.npz" if feature == "embedding" else None
    config_lib.validate(config)


@pytest.mark.parametrize(
    ("name", "value"), [("sample_rate", 22051), ("n_mels", 96), ("fmin", 20.0)]
)
def test_what_a_network_of_features_was_trained_on_cannot_be_changed(name, value):
    config = config_lib.get_config()
    config.model.name, config.feature.name = "track", "musicnn"
    config.feature[name] = value
    with pytest.raises(
        UserError, match=rf"feature.{name} is {value}, but .*musicnn brings .*out\."
    ):
        config_lib.validate(config)


def test_only_musicnns_features_depend_on_which_of_its_models_is_meant():
    feature = config_lib.get_config().feature.to_dict()
    for settings in (config_lib.feature_settings, config_lib.training_settings):
        assert "musicnn" not in settings(feature)
        assert settings(feature | {"name": "musicnn"})["musicnn"] == "MSD_musicnn"
        assert "musicnn_dir" not in settings(feature | {"name": "musicnn"})
    assert config_lib.shared_settings(feature)["musicnn"] == "MSD_musicnn"


@pytest.mark.parametrize(("name", "path"), [("embedding", None), ("mfcc", "clap.npz")])
def test_vectors_of_another_model_need_both_their_name_and_their_file(name, path):
    config = config_lib.get_config()
    config.feature.update(name=name, embedding=path)
    with pytest.raises(UserError, match=r"feature\.name=embedding and .*feature\.embedding=PATH"):
        config_lib.validate(config)


def test_plda_is_refused_where_no_frames_are_stored_to_cut_into_segments():
    config = config_lib.get_config()
    config.baselines = ("plda",)
    for name in config_lib.FRAMES:
        config.feature.name = name
        config.model.name = "conv2d"
        config_lib.validate(config)
    config.feature.name, config.model.name = "mfcc", "mlp"
    with pytest.raises(UserError, match=r"plda is not for config.feature.name=mfcc"):
        config_lib.validate(config)


def test_windows_shorter_than_a_segment_are_refused_where_segments_are_cut():
    config = config_lib.get_config()
    config.feature.update(excerpt="spread", num_windows=11)
    config_lib.validate(config)
    config.feature.name, config.model.name = "logmelspec", "conv2d"
    with pytest.raises(UserError, match=r"feature\.num_windows \(11\).*segment_frames \(128\)"):
        config_lib.validate(config)
    config.feature.num_windows = 10
    config_lib.validate(config)


def test_only_k_means_takes_sharded_latents():
    config = config_lib.get_config()
    config.embed.format, config.cluster.method = "sharded", "dbscan"
    with pytest.raises(UserError, match="dbscan needs all latents in memory"):
        config_lib.validate(config)
