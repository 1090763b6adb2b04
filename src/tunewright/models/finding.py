"""From a name to a folder: a packaged base, a folder, a Hub id, an earlier run.

`loading` makes a model of what is found here. Downloads safetensors, JSON and tokenizer files only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError, NetworkError
from tunewright.models import packaged
from tunewright.models.quiet import quiet

HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class BaseModel:
    """Where a base model is, and what to call it."""

    name: str  # as given
    path: str  # folder on this machine
    kind: str  # packaged, folder, hub, run
    hub_id: str | None = None
    revision: str | None = None  # exact commit


def resolve_base(model: str, revision: str | None = None, runs: Path = Path("runs")) -> BaseModel:
    """The folder behind a name. Raises ModelError, NetworkError."""
    if model in packaged.PACKAGED:
        path = packaged.locate(model)
        return BaseModel(model, str(path), "packaged", packaged.PACKAGED[model].hub_id)
    if model.startswith("run:"):
        return BaseModel(model, str(_run_folder(model[4:], runs)), "run")
    path = Path(model).expanduser()
    if path.is_dir():
        return BaseModel(model, str(path.resolve()), "folder")
    if path.is_absolute() or model.startswith(".") or model.count("/") > 1:
        raise ModelError("no such folder; give a folder, a Hub id (owner/name) or minilm", where=model, field="model")
    return from_hub(model, revision)


def _run_folder(name: str, runs: Path) -> Path:
    folder = runs / name
    matches = [folder] if folder.is_dir() else sorted(p for p in runs.glob(f"{name}*") if (p / "model").is_dir())
    if len(matches) != 1 or not (matches[0] / "model").is_dir():
        raise ModelError(f'no finished run "{name}" in {runs}; see: tunewright runs ls', field="model")
    return (matches[0] / "model").resolve()


def from_hub(hub_id: str, revision: str | None = None, endpoint: str | None = None) -> BaseModel:
    """Download a model's safetensors, configs and tokenizer; the exact commit is recorded."""
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        commit = HfApi(endpoint=endpoint).model_info(hub_id, revision=revision).sha
    except HFValidationError:
        raise ModelError(f'"{hub_id}" is neither a folder nor a Hub id (owner/name)', field="model") from None
    except HfHubHTTPError as error:
        raise _hub_error(hub_id, error) from None
    except (httpx2.HTTPError, OSError, LookupError):
        commit = revision  # offline: what the cache has of this revision
    try:
        with quiet():
            path = snapshot_download(hub_id, revision=commit, allow_patterns=HUB_FILES, endpoint=endpoint)
    except HfHubHTTPError as error:
        raise _hub_error(hub_id, error) from None
    except (httpx2.HTTPError, LocalEntryNotFoundError, OSError):
        raise NetworkError(
            f'"{hub_id}" is no folder here and the Hub can\'t be reached; '
            "check the connection, or give a folder or minilm",
            field="model",
        ) from None
    return BaseModel(hub_id, path, "hub", hub_id, commit or Path(path).name)


def _hub_error(hub_id: str, error: Any) -> NetworkError | ModelError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 404:
        return ModelError(f'the Hub has no model "{hub_id}"; check the name and the revision', field="model")
    if status in (401, 403):
        return NetworkError(
            f'the Hub refuses "{hub_id}" ({status}); it is private or gated: set HF_TOKEN', field="model"
        )
    return NetworkError(f'the Hub answers {status} for "{hub_id}"; try again later', field="model")
