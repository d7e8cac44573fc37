import contextlib
import json

import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import config_flags

from vae_jax import config as config_lib
from vae_jax.errors import UserError


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
        ("model.name", "transformer", "one of mlp"),
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


RULES = sorted(set(config_lib._RULES) - {"baselines", "model.hidden_dims"})
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
    if key == "ae":
        config.baselines = ("pca", "ae")
    else:
        config.model[key] = {"condition": "genre", "deterministic": True}[key]
    with pytest.raises(UserError, match=f"not for config.model.name={name}"):
        config_lib.validate(config)


def test_windows_shorter_than_a_segment_are_refused_where_segments_are_cut():
    config = config_lib.get_config()
    config.feature.update(excerpt="spread", num_windows=11)
    config_lib.validate(config)
    config.feature.name = "logmelspec"
    with pytest.raises(UserError, match=r"feature\.num_windows \(11\).*segment_frames \(128\)"):
        config_lib.validate(config)
    config.feature.num_windows = 10
    config_lib.validate(config)


def test_only_k_means_takes_sharded_latents():
    config = config_lib.get_config()
    config.embed.format, config.cluster.method = "sharded", "dbscan"
    with pytest.raises(UserError, match="dbscan needs all latents in memory"):
        config_lib.validate(config)
