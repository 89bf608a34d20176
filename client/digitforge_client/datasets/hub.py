"""Publishes a data set in Parquet shards on Hugging Face's Hub."""

from __future__ import annotations

from pathlib import Path

from digitforge_client.common.extras import needs_extra
from digitforge_client.datasets import croissant, data_card, manifest
from digitforge_client.errors import DataError, DigitforgeError, InvalidInputError


def check_hub(name: str) -> None:
    """Check the name of a data set on the Hub, and the library, before anything is generated.

    Raises:
        InvalidInputError: the Hub does not allow this name.
        MissingExtraError: the library is not installed.
    """
    with needs_extra("hub", "`digitforge generate --push-to-hub`"):
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InvalidInputError(f"--push-to-hub is {name!r}; expected USER/NAME, as on the Hub ({error})") from error


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload a finished data set, and create its page on the Hub if there is none.

    Shards of an earlier upload that are not in the folder are removed. The library finds the token in HF_TOKEN or where
    ``hf auth login`` put it, and the address of the Hub in HF_ENDPOINT.

    Args:
        folder: a folder that `generate` filled with Parquet shards.
        name: name of the data set: USER/NAME.
        private: create a private data set. An existing one stays as it is.

    Returns:
        The address of the page.

    Raises:
        DataError: the Hub rejected the data set.
        DigitforgeError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError

    api = HfApi(library_name="digitforge")
    files = [manifest.NAME, data_card.NAME, croissant.NAME, data_card.SHARDS]
    try:
        page = api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=files,
            delete_patterns=data_card.SHARDS,
            commit_message="Upload a data set of digitforge generate",
        )
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        reason = getattr(error, "server_message", None) or str(error).splitlines()[0]
        raise DataError(
            f"the Hub did not accept {name}: {reason}; check the name, and log in with `hf auth login` or set HF_TOKEN "
            f"to a token that may write; {folder} is complete, and the same command uploads it"
        ) from error
    except (HTTPError, OSError) as error:  # no connection
        raise DigitforgeError(
            f"cannot reach the Hub ({error}); {folder} is complete, and the same command uploads it"
        ) from error
    return str(page)
