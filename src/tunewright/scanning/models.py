"""A stranger's model or adapter folder, looked through before any library opens it: `scan_model` is the one door.

    regular files in the folder -> safetensors and no pickle -> headers and index -> settings -> chat templates

Called by `models` for each folder it loads, by `serving` for what it copies or pushes. SECURITY.md has the attacks.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.scanning import files, settings, templates
from tunewright.scanning.headers import check_headers

ADAPTER = "adapter_config.json"


def scan_model(folder: Path) -> tuple[str, ...]:
    """Sentences about what is ignored. Raises ModelError for what can't be trusted."""
    if not folder.is_dir():
        return ()  # whoever opens it says what is missing
    found = files.model_files(folder)
    _refuse_pickles(folder)
    check_headers(folder)
    said: list[str] = []
    for path in found:
        if path.suffix == ".jinja":
            templates.check_file(path)
        elif settings.is_settings(path):
            said += _scan_settings(path, folder)
    return tuple(dict.fromkeys(said))


def copy_model(folder: Path, to: Path) -> None:
    """What belongs to a scanned model, and nothing else that lies in its folder."""
    to.mkdir(parents=True)
    for path in files.model_files(folder):
        target = to / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(path, target)


def _refuse_pickles(folder: Path) -> None:
    """Where only pickles hold the weights. Beside safetensors they are harmless: nothing opens them."""
    wanted = "adapter_model.safetensors" if (folder / ADAPTER).exists() else "*.safetensors"
    there = sorted(path.name for path in folder.iterdir() if files.is_pickle(path))
    if not there or any(folder.glob(wanted)):
        return
    missing = f"no {wanted.removeprefix('*')} here"
    raise ModelError(
        f"{missing}, only {', '.join(there[:3])}{' …' if len(there) > 3 else ''}: a pickle can run code when it is "
        "opened, so only safetensors weights are loaded; ask its author for them, or convert it with the Hub's "
        "safetensors/convert",
        where=str(folder),
    )


def _scan_settings(path: Path, folder: Path) -> list[str]:
    if path.name == ADAPTER and not _is_table(path):
        return []  # `models.adapters` says what is missing
    body = settings.read_json(path)
    templates.check_settings(body, path)
    modules = settings.refuse_code(body, path)
    if not modules:
        return []
    if not _known(body, path, folder):
        raise ModelError(
            f"this model brings its own Python code, which is never run here ({', '.join(modules)}); "
            "choose one of a type that transformers knows",
            where=str(path),
            field="auto_map",
        )
    return [f"{path.name} names Python code of its own ({', '.join(modules)}): it is ignored, transformers' is used"]


def _is_table(path: Path) -> bool:
    try:
        return isinstance(settings.read_json(path), dict)
    except ModelError:
        return False


def _known(body: Any, path: Path, folder: Path) -> bool:
    """Whether transformers has this type, or this tokenizer, itself."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    if path.name == "tokenizer_config.json" and isinstance(body, dict):
        named = str(body.get("tokenizer_class")).removesuffix("Fast")
        own = {str(name).removesuffix("Fast") for name in TOKENIZER_MAPPING_NAMES.values()}
        if named in own | {"PreTrainedTokenizer"}:
            return True
    config = folder / "config.json"
    described = settings.read_json(config) if config.is_file() else body
    return isinstance(described, dict) and described.get("model_type") in CONFIG_MAPPING_NAMES
