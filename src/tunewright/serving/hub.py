"""Push a run to the Hub: the model, its card and its recipe, in one commit, private unless asked otherwise.

Only safetensors, JSON and text leave this machine: no optimizer, no path, no token. Loading from the Hub is `loading`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError, NetworkError, TunewrightError, UsageError
from tunewright.models import packaged
from tunewright.models.loading import quiet
from tunewright.models.saving import rewrite_adapter_base
from tunewright.serving.card import model_card


def push(
    run_folder: Path, repo_id: str, *, private: bool = True, revision: str | None = None, endpoint: str | None = None
) -> str:
    """Upload and return the address. Raises ModelError, NetworkError, UsageError in one sentence."""
    if not (run_folder / "model").is_dir():
        raise ModelError("this run has no model to push; finish it first", where=str(run_folder))
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "model"
        _prepare(run_folder, repo_id, prepared)
        return _upload(prepared, repo_id, private, revision, endpoint)


def _prepare(run_folder: Path, repo_id: str, folder: Path) -> None:
    """Exactly what will be public."""
    shutil.copytree(run_folder / "model", folder, ignore=shutil.ignore_patterns("*.bin", "*.pt", "*.pkl", ".*"))
    if (folder / "adapter_config.json").exists() and not rewrite_adapter_base(folder, packaged.hub_id_of):
        raise ModelError(
            "the adapter's base model is a folder of this machine, so nobody could load it from the Hub; push a merged "
            "model instead: tunewright export RUN --to merged -o DIR, then hf upload",
            where=str(run_folder),
        )
    (folder / "README.md").write_text(model_card(run_folder, repo_id), encoding="utf-8")


def _upload(folder: Path, repo_id: str, private: bool, revision: str | None, endpoint: str | None) -> str:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi(endpoint=endpoint)
    try:
        with quiet():
            url = api.create_repo(repo_id, private=private, exist_ok=True, repo_type="model")
            api.upload_folder(
                repo_id=str(url.repo_id),
                folder_path=folder,
                revision=revision,
                commit_message="Model, card and recipe from tunewright",
            )
    except HFValidationError:
        raise UsageError(f'"{repo_id}" is no Hub id; expected you/name', field="ID") from None
    except LocalTokenNotFoundError:
        raise NetworkError("the Hub wants to know who you are; set HF_TOKEN to a token that may write") from None
    except HfHubHTTPError as error:
        raise _refused(repo_id, error) from None
    except (httpx2.HTTPError, OSError, RuntimeError) as error:
        if isinstance(error, TunewrightError):
            raise
        raise NetworkError(f"the Hub can't be reached ({type(error).__name__}); check the connection and try again") from None
    return str(url)


def _refused(repo_id: str, error: Any) -> TunewrightError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return NetworkError(f'the Hub refuses to write "{repo_id}" ({status}); set HF_TOKEN to a token that may write there')
    if status == 404:
        return NetworkError(f'the Hub knows no "{repo_id}" or its owner; check the name')
    if status == 409:
        return NetworkError(f'"{repo_id}" was changed by someone else meanwhile; push again')
    return NetworkError(f"the Hub answers {status}; try again later")
