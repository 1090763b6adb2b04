"""Datasets of the Hugging Face Hub, fetched through `datasets` at one exact commit.

Called by `sources` for an id such as stanfordnlp/imdb (or owner/name:configuration). Runs no code of the dataset:
loading scripts are refused by the library.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Generator
from typing import TYPE_CHECKING

from tunewright.errors import DataError, MachineError, NetworkError, TunewrightError

if TYPE_CHECKING:
    import datasets

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")


def is_hub_id(text: str) -> bool:
    """Whether this could be owner/name or owner/name:configuration."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def load_hub_dataset(dataset_id: str, revision: str | None) -> tuple[datasets.DatasetDict, str]:
    """The dataset and the commit that `revision` (default: the newest) stands for."""
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    name, _, configuration = dataset_id.partition(":")
    try:
        with _silence():
            commit = HfApi().dataset_info(name, revision=revision, timeout=30).sha or ""
            loaded = datasets.load_dataset(name, configuration or None, revision=commit)
    except (OSError, HTTPError, ValueError, RuntimeError, DatasetsError) as error:
        raise _explain(error, dataset_id, revision) from None
    if not isinstance(loaded, datasets.DatasetDict):
        raise DataError(f"the Hub gave a {type(loaded).__name__}; expected splits with rows", where=dataset_id)
    return loaded, commit


@contextlib.contextmanager
def _silence() -> Generator[None]:
    """A library call prints nothing: bars and log of `datasets` are off, and as they were afterwards."""
    import datasets

    shown, verbosity = not datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if shown:
            datasets.enable_progress_bars()


def _explain(error: Exception, dataset_id: str, revision: str | None) -> TunewrightError:
    """NetworkError where the Hub is away or refuses, DataError where what was asked for isn't there or isn't data."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub import errors

    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
    if isinstance(error, errors.RevisionNotFoundError):
        return DataError(f'the Hub has this dataset, but no revision "{revision}"', where=dataset_id, field="revision")
    if isinstance(error, errors.GatedRepoError):
        return NetworkError(
            "the Hub gives this dataset only to accounts it let in; log in with `hf auth login`", where=dataset_id
        )
    if isinstance(error, errors.RepositoryNotFoundError | DatasetNotFoundError):
        return DataError("neither a file here nor a dataset of the Hub that you may see", where=dataset_id)
    if isinstance(error, errors.HfHubHTTPError):
        return NetworkError(f"the Hub refused ({reason})", where=dataset_id)
    if isinstance(error, ValueError | RuntimeError | DatasetsError):
        return DataError(f"this dataset can't be read ({_cause(error, reason)})", where=dataset_id)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
        return MachineError(f"the dataset can't be stored here ({reason})", where=dataset_id)
    away = "the Hub can't be reached, and there is no such file here; check the connection, or give a file"
    return NetworkError(f"{away} ({reason})", where=dataset_id)


def _cause(error: Exception, reason: str) -> str:
    """`datasets` wraps what went wrong; configurations to choose from stand on the second line."""
    if "Config name is missing" in str(error):
        return (
            "it has several configurations; give one as owner/name:configuration. " + " ".join(str(error).split())[:200]
        )
    return str(error.__cause__).splitlines()[0][:200] if error.__cause__ and str(error.__cause__) else reason
