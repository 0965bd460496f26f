"""Data sets of the Hugging Face hub, by `hf://org/name@revision`.

Owns the way from the name to a folder: the hub's own library fetches into its own cache, so that a second
run, or one without a network, reads what is there.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from registry.errors import UsageError
from train.dataset.containers.place import hub_name, shown_path

_WANTED = ("*.json*", "*.ndjson*", "*.csv*", "*.tsv*", "*.parquet", "*.arrow", "*.txt*", "README.md")
_OFFLINE = "fetch it where the hub can be reached (hf download NAME --repo-type dataset), and name the folder"


@lru_cache(maxsize=32)
def fetch_snapshot(path: Path) -> Path:
    """Return the folder of the data set that `path` (`hf://org/name@revision`) names, fetched where needed.

    Raises: UsageError: there is no such data set, it may not be read, or the hub cannot be reached.
    """
    from huggingface_hub import errors, snapshot_download

    name, _, revision = (hub_name(path) or "").partition("@")
    try:
        found = snapshot_download(
            name, repo_type="dataset", revision=revision or None, allow_patterns=list(_WANTED)
        )
    except errors.HFValidationError as error:
        raise UsageError(shown_path(path), "is not a name of a data set", "write hf://ORG/NAME") from error
    except errors.GatedRepoError as error:
        fact, remedy = "needs the consent of its owners", "ask for it on the hub, and set HF_TOKEN"
        raise UsageError(shown_path(path), fact, remedy) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(path, error) from error
    return Path(found)


def _unreachable(path: Path, error: Exception) -> UsageError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
        remedy = "correct the name; a private one needs HF_TOKEN"
        return UsageError(shown_path(path), "is not on the hub", remedy)
    if constants.HF_HUB_OFFLINE:
        fact = "is not in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it"
    else:
        fact = f"cannot be fetched from the hub ({type(error).__name__})"
    return UsageError(shown_path(path), fact, _OFFLINE)
