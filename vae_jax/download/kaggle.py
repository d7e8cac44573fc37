"""Kaggle data sets, through kagglehub, which resumes, verifies (MD5), unpacks and keeps them.

Credentials are kagglehub's: KAGGLE_API_TOKEN, KAGGLE_USERNAME and KAGGLE_KEY, or
`~/.kaggle/kaggle.json`. Many public data sets need none.
"""

import os
import re
import tarfile
import zipfile
from pathlib import Path

from vae_jax.download import folder, local
from vae_jax.errors import UserError

HANDLE = re.compile(r"[\w.-]+/[\w.-]+(/versions/\d+)?")


def download(dataset: str, data_dir: Path, genre_from_folder: bool) -> Path:
    """Fetch a data set and write the manifest of the music in it.

    Parameters
    ----------
    dataset
        `OWNER/NAME`, or `OWNER/NAME/versions/N` for one version.
    data_dir
        The target folder, unless `KAGGLEHUB_CACHE` names another for the files.
    genre_from_folder
        As for `folder.manifest`.

    Returns
    -------
    Path
        The manifest `metadata.csv` in `data_dir`.
    """
    if not HANDLE.fullmatch(dataset):
        raise UserError(f"{dataset!r} is not a Kaggle data set's name: write OWNER/NAME.")
    manifest = data_dir / "metadata.csv"
    local.check_manifest(manifest)
    # kagglehub knows its folder from the environment alone; its output_dir cannot resume.
    os.environ.setdefault("KAGGLEHUB_CACHE", str(data_dir))
    with local.work_folder(data_dir):
        path = _fetch(dataset, data_dir)
        version = path.name if path.parent.name == "versions" else ""
        record = {"source": "kaggle", "dataset": dataset, "version": version}
        folder.manifest(path, manifest, genre_from_folder, record)
    return manifest


def _fetch(dataset: str, data_dir: Path) -> Path:
    kagglehub = local.require("kagglehub")
    import requests
    from kagglehub import exceptions

    try:
        return Path(kagglehub.dataset_download(dataset))
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise UserError(_http_sentence(dataset, status)) from error
    except (exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
        raise UserError(_http_sentence(dataset, 401)) from error
    except exceptions.DataCorruptionError as error:
        raise UserError(
            f"{dataset} arrived damaged (its MD5 is wrong): run the same command again."
        ) from error
    except requests.RequestException as error:
        raise UserError(
            "cannot reach Kaggle: check the network, then run the same command again; it "
            "continues where it stopped."
        ) from error
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(
            f"refused the archive of {dataset} ({error}): it is damaged, or holds names that lead "
            "outside the target folder; do not trust it."
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {data_dir}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(f"kagglehub cannot fetch {dataset}: {error}.") from error


def _http_sentence(dataset: str, status: int) -> str:
    if status in (401, 403):
        return (
            f"Kaggle refuses access to {dataset} ({status}): accept its terms at "
            f"https://www.kaggle.com/datasets/{dataset} and log in with an API token from "
            "https://www.kaggle.com/settings, in KAGGLE_API_TOKEN or ~/.kaggle/kaggle.json."
        )
    if status == 404:
        return f"Kaggle has no data set {dataset!r}: check --dataset (OWNER/NAME)."
    return f"Kaggle fails (error {status}): wait, then run the same command again."
