"""From a name to a folder: a packaged base, a folder, a .gguf file, a Hub id, an earlier run.

`loading` makes a model of what is found here. Downloads safetensors, JSON and tokenizer files only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.data.archives import cache_folder
from tunewright.errors import ModelError, NetworkError, did_you_mean
from tunewright.models import packaged
from tunewright.models.gguf import GGUF_PACKAGES, is_gguf, is_whole, open_gguf
from tunewright.models.quiet import quiet
from tunewright.scanning.files import is_pickle, scan_run

HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
NAMES = (*packaged.PACKAGED, *GGUF_PACKAGES)  # base models that come as packages


@dataclass(frozen=True)
class BaseModel:
    """Where a base model is, and what to call it."""

    name: str  # as given
    path: str  # folder on this machine
    kind: str  # packaged, gguf, folder, hub, run
    hub_id: str | None = None
    revision: str | None = None  # exact commit


def resolve_base(model: str, revision: str | None = None, runs: Path = Path("runs")) -> BaseModel:
    """The folder behind a name. Raises ModelError, NetworkError."""
    if model in packaged.PACKAGED:
        path = packaged.locate(model)
        return BaseModel(model, str(path), "packaged", packaged.PACKAGED[model].hub_id)
    if model in GGUF_PACKAGES or (is_gguf(model) and not Path(model).expanduser().is_dir()):
        return BaseModel(model, str(open_gguf(model, gguf_folder())), "gguf")
    if model.startswith("run:"):
        return BaseModel(model, str(_run_folder(model[4:], runs)), "run")
    path = Path(model).expanduser()
    if path.is_dir():
        return BaseModel(model, str(path.resolve()), "folder")
    if path.is_absolute() or model.startswith(".") or model.count("/") > 1:
        there = f"a folder, a .gguf file, a Hub id (owner/name), {' or '.join(NAMES)}"
        says = f"no such folder; give {there}.{_nearest(path)}"
        raise ModelError(says, where=model, field="model")
    if "/" not in model and (near := did_you_mean(model, NAMES)):
        raise ModelError(f'"{model}" is no folder here and no packaged model.{near}', field="model")
    return from_hub(model, revision)


def gguf_folder() -> Path:
    """Where GGUF bases are kept once they are converted."""
    return cache_folder() / "gguf"


def gguf_again(path: str) -> BaseModel | None:
    """The converted GGUF base whose folder was this, in this cache: its name is the file's hash. None if unknown."""
    key = Path(path).name
    if Path(path).parent.name != "gguf" or not re.fullmatch("[0-9a-f]{64}", key):
        return None
    name = next((name for name, package in GGUF_PACKAGES.items() if package.sha256 == key), None)
    if name:
        return resolve_base(name)
    here = gguf_folder() / key
    if is_whole(here):
        return BaseModel(str(here), str(here), "gguf")
    raise ModelError(
        f"its base model was made from a .gguf file (SHA-256 {key[:12]}…) and is not in the cache any more; give that "
        "file as --model once, or put the folder back",
        where=path,
    )


def _nearest(path: Path) -> str:
    """The packaged model, or the folder beside it, that was meant."""
    beside = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, [*NAMES, *beside])


def _run_folder(name: str, runs: Path) -> Path:
    """The model of a finished run: by its whole id, the beginning of it, or its name without the date."""
    if not re.fullmatch(r"[\w.-]+", name) or name in (".", ".."):
        raise ModelError(f'"{name}" is no name of a run; see: tunewright runs ls', field="model")
    finished = sorted(p for p in runs.glob("*") if (p / "model").is_dir()) if runs.is_dir() else []
    matches = [p for p in finished if p.name == name] or [p for p in finished if p.name.startswith(name)]
    matches = matches or [p for p in finished if re.sub(r"^\d{8}-\d{4}-", "", p.name) == name]
    if not matches:
        names = [re.sub(r"^\d{8}-\d{4}-", "", p.name) for p in finished]
        near = did_you_mean(name, names)
        raise ModelError(f'no finished run "{name}" in {runs}; see: tunewright runs ls.{near}', field="model")
    if len(matches) > 1:
        shown = ", ".join(p.name for p in matches[:4])
        raise ModelError(f'"{name}" could be {shown}; write more of the name', field="model")
    scan_run(matches[0])
    return (matches[0] / "model").resolve()


def from_hub(hub_id: str, revision: str | None = None, endpoint: str | None = None) -> BaseModel:
    """Download a model's safetensors, configs and tokenizer; the exact commit is recorded."""
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if revision is not None and (not re.fullmatch(r"[\w./-]{1,200}", revision) or ".." in revision):
        raise ModelError(f"{revision!r} is no branch, tag or commit", where=hub_id, field="revision")
    try:
        info = HfApi(endpoint=endpoint).model_info(hub_id, revision=revision)
        commit = info.sha
        _refuse_without_safetensors(hub_id, [file.rfilename for file in info.siblings or ()])
    except HFValidationError:
        raise ModelError(f'"{hub_id}" is neither a folder nor a Hub id (owner/name)', field="model") from None
    except HfHubHTTPError as error:
        raise _hub_error(hub_id, error) from None
    except UnicodeEncodeError:
        raise NetworkError("HF_TOKEN holds a character that no token has; set it again") from None
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
            f"check the connection, or give a folder, {' or '.join(NAMES)}",
            field="model",
        ) from None
    return BaseModel(hub_id, path, "hub", hub_id, commit or Path(path).name)


def _refuse_without_safetensors(hub_id: str, names: list[str]) -> None:
    """Before anything is downloaded. The same sentence as for a folder, with what the repository has instead."""
    weights = [name for name in names if is_pickle(Path(name)) or name.endswith((".gguf", ".onnx", ".py"))]
    if weights and not any(name.endswith(".safetensors") for name in names):
        raise ModelError(
            f"only safetensors weights are loaded, and this repository has none (it has {', '.join(weights[:4])}"
            f"{' …' if len(weights) > 4 else ''}); ask its author, or convert it with the Hub's safetensors/convert",
            where=hub_id,
            field="model",
        )


def _hub_error(hub_id: str, error: Any) -> NetworkError | ModelError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 404:
        return ModelError(f'the Hub has no model "{hub_id}"; check the name and the revision', field="model")
    if status in (401, 403):
        return NetworkError(
            f'the Hub refuses "{hub_id}" ({status}); it is private or gated: set HF_TOKEN', field="model"
        )
    return NetworkError(f'the Hub answers {status} for "{hub_id}"; try again later', field="model")
