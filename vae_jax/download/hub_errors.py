"""Turns what can go wrong with the Hugging Face hub into one sentence for the user."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from vae_jax.errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def explained(
    repo_id: str, endpoint: str, revision: str | None, folder: Path | None = None
) -> Iterator[None]:
    """Run a block that talks to the hub; its foreseeable errors become a `UserError`.

    Parameters
    ----------
    repo_id, endpoint, revision
        What is asked for, and at which server.
    folder
        Where files are written; None while only the listing is read.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{repo_id} is gated: accept its terms at {endpoint}/datasets/{repo_id}, log in with "
            "`hf auth login` (or set HF_TOKEN), then run this again."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{endpoint} has no data set {repo_id!r} that you may read: check --repo_id, and if "
            "it is private, log in with `hf auth login` (or set HF_TOKEN)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{repo_id} has no revision {revision!r}: check --revision, or leave it out."
        ) from error
    except errors.HfHubHTTPError as error:
        raise UserError(_http_sentence(repo_id, endpoint, error.response.status_code)) from error
    except errors.HFValidationError as error:
        raise UserError(f"{repo_id!r} is not a data set's name: write OWNER/NAME.") from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError("HF_HUB_OFFLINE is set: unset it to download.") from error
    except errors.HTTPError as error:  # of the HTTP library: no connection, or a broken one
        raise UserError(
            f"cannot reach {endpoint} ({error or type(error).__name__}): check the network, then "
            "run the same command again; it continues where it stopped."
        ) from error
    except OSError as error:
        raise UserError(_system_sentence(repo_id, folder, error)) from error
    except (ValueError, TypeError, KeyError) as error:
        if folder is not None:
            raise
        raise UserError(  # the listing is not what a hub sends
            f"{endpoint} does not answer as a Hugging Face hub does: check HF_ENDPOINT and "
            "whether the network asks for a log-in page."
        ) from error


def _http_sentence(repo_id: str, endpoint: str, status: int) -> str:
    if status == 401:
        return (
            f"{endpoint} asks for a valid log-in to read {repo_id} (401): run `hf auth login`, or "
            "set HF_TOKEN."
        )
    if status == 403:
        return (
            f"you may not read {repo_id} (403): ask its owner for access, or log in with "
            "`hf auth login` as someone who may."
        )
    if status == 404:
        return f"a file of {repo_id} is gone (404): run the same command again."
    return (
        f"{endpoint} fails (error {status}): wait, then run the same command again; it continues "
        "where it stopped."
    )


def _system_sentence(repo_id: str, folder: Path | None, error: OSError) -> str:
    if error.errno in NO_ROOM:
        return f"no room left on the disk of {folder}: make some, then run the same command again."
    if error.errno is None:  # the client found fewer bytes than announced
        return f"a file of {repo_id} arrived incomplete: run the same command again to continue."
    return f"cannot write {error.filename or folder}: {error.strerror}."
