"""Push a run to the Hub: the model, its card and its recipe, in one commit, private unless asked otherwise.

Only safetensors, JSON and text leave this machine: no optimizer, no path, no token. Loading from the Hub is `loading`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError, NetworkError, TunewrightError, UsageError
from tunewright.evaluation.record import Record, mapping, read_record
from tunewright.models import packaged
from tunewright.models.finding import HUB_FILES
from tunewright.models.quiet import quiet
from tunewright.models.saving import rewrite_adapter_base
from tunewright.scanning.files import scan_run
from tunewright.scanning.models import scan_model
from tunewright.serving.card import model_card, public_recipe

# Of an earlier push: an adapter beside a whole model would be loaded in its place, or the other way round.
STALE = ["*.safetensors", "*.safetensors.index.json", "adapter_config.json"]


def push(
    run_folder: Path, repo_id: str, *, private: bool = True, revision: str | None = None, endpoint: str | None = None
) -> str:
    """Upload and return the address. `revision`: a branch, made if it isn't there.

    Raises ModelError, NetworkError, UsageError in one sentence.
    """
    scan_run(Path(run_folder))
    record = read_record(Path(run_folder))
    state = record.run.get("state")
    if state not in (None, "succeeded"):
        raise ModelError(f"isn't finished: its state is {state}", where=str(run_folder))
    if not (record.folder / "model").is_dir():
        raise ModelError("this run has no model to push; finish it first", where=str(run_folder))
    scan_model(record.folder / "model")
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "model"
        _prepare(record, repo_id, prepared)
        return _upload(prepared, repo_id, private, revision, endpoint)


def _prepare(record: Record, repo_id: str, folder: Path) -> None:
    """Exactly what will be on the Hub."""
    folder.mkdir()
    for path in sorted((record.folder / "model").iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in HUB_FILES):
            shutil.copy2(path, folder / path.name)
    if (folder / "adapter_config.json").exists():
        _name_base(record, folder)
    _forget_local(folder / "tokenizer_config.json")
    (folder / "README.md").write_text(model_card(record.folder, repo_id), encoding="utf-8")
    (folder / "recipe.resolved.yaml").write_text(public_recipe(record) + "\n", encoding="utf-8")


def _name_base(record: Record, folder: Path) -> None:
    """An adapter on the Hub names a base on the Hub."""
    model = mapping(record.run.get("model"))
    known = {str(model.get("path")): model.get("hub_id")}
    if not rewrite_adapter_base(folder, lambda path: packaged.hub_id_of(path) or known.get(path)):
        raise ModelError(
            "the adapter's base only exists on this machine, so nobody could load it from the Hub; use "
            f"tunewright export {record.folder.name} --to merged first, and upload that folder with: hf upload",
            where=str(record.folder),
        )


def _forget_local(path: Path) -> None:
    """transformers notes that a tokenizer came from a folder, and to look nowhere else; on the Hub that is wrong."""
    if path.is_file():
        body = json.loads(path.read_text(encoding="utf-8"))
        kept = {
            key: value for key, value in body.items() if key not in ("is_local", "local_files_only", "name_or_path")
        }
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _upload(folder: Path, repo_id: str, private: bool, revision: str | None, endpoint: str | None) -> str:
    """Create what isn't there, and commit once. The libraries' own errors may quote headers, so none is passed on."""
    import httpx2
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        with quiet():
            return _commit(folder, repo_id, private, revision, endpoint)
    except TunewrightError:
        raise
    except HFValidationError:
        raise UsageError(f'"{repo_id}" is no Hub id; expected you/name', field="ID") from None
    except LocalTokenNotFoundError:
        raise NetworkError("the Hub wants to know who you are; set HF_TOKEN to a token that may write") from None
    except OfflineModeIsEnabled:
        raise NetworkError("HF_HUB_OFFLINE is set, so nothing is sent; unset it to push") from None
    except HfHubHTTPError as error:
        raise _refused(repo_id, error) from None
    except UnicodeEncodeError:
        raise NetworkError("HF_TOKEN holds a character that no token has; set it again") from None
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise NetworkError(
            f"the Hub can't be reached ({type(error).__name__}); check the connection and try again"
        ) from None


def _commit(folder: Path, repo_id: str, private: bool, revision: str | None, endpoint: str | None) -> str:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    url = api.create_repo(repo_id, private=private, exist_ok=True, repo_type="model")
    # One that was there keeps its visibility, whatever is asked for now.
    if private and not api.model_info(url.repo_id).private:
        raise UsageError(
            f'"{repo_id}" is there already and public, and a push is private unless asked otherwise; '
            "push with --public, or choose another name",
            field="ID",
        )
    if revision:
        api.create_branch(url.repo_id, branch=revision, exist_ok=True)
    api.upload_folder(
        repo_id=url.repo_id,
        folder_path=folder,
        revision=revision,
        delete_patterns=STALE,
        commit_message="Model, card and recipe from tunewright",
    )
    return f"{url}/tree/{revision}" if revision else str(url)


def _refused(repo_id: str, error: Any) -> TunewrightError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return NetworkError(
            f'the Hub refuses to write "{repo_id}" ({status}); set HF_TOKEN to a token that may write there'
        )
    if status == 404:
        return NetworkError(
            f'the Hub knows no "{repo_id}" that you may write to; check the name and its owner, and HF_TOKEN'
        )
    if status in (409, 412):
        return NetworkError(f'"{repo_id}" was changed by someone else meanwhile ({status}); push again')
    if status == 400:
        return UsageError(f'the Hub refuses the name or the files of "{repo_id}" (400); check the name', field="ID")
    return NetworkError(f"the Hub answers {status}; try again later")
