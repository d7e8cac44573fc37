import subprocess
import sys
from pathlib import Path

import pytest

import vae_jax
from tests.conftest import write_collection
from vae_jax import models
from vae_jax.models.declared import models_declared

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
IMPORTS = """
from collections.abc import Mapping
from typing import Any

from vae_jax.models import priors
from vae_jax.models.mlp import Mlp
from vae_jax.models.vae import Vae

"""


def test_models_are_listed_without_importing_flax():
    code = (
        "import sys; from vae_jax.models.declared import models_declared; "
        "assert sorted(models_declared()) == ['conv2d', 'mlp', 'multimodal', 'track']; "
        "sys.exit(bool({'jax', 'flax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_new_model_is_one_file(tmp_path, monkeypatch):
    """Write the model that CONTRIBUTING.md shows into a file, and run the main job with it."""
    text = CONTRIBUTING.read_text().partition("## A model")[2]
    code = text.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "my_model.py").write_text(IMPORTS + code)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path / "models")])
    monkeypatch.chdir(tmp_path)
    models_declared.cache_clear()
    try:
        settings = {
            **{"manifest": str(write_collection(tmp_path / "music", 9)), "model.name": "my_model"},
            **{"feature.sample_rate": 8000, "feature.duration": 1.0, "feature.num_workers": 1},
            **{"train.num_steps": 4, "train.batch_size": 4, "cluster.num_clusters": 3},
            **{"cluster.num_seeds": 1, "visualize.method": "pca"},
        }
        config = vae_jax.config.get_config()
        config.update_from_flattened_dict(settings)
        assert vae_jax.train(config, tmp_path / "results").latents.shape == (9, 16)
    finally:
        models_declared.cache_clear()
