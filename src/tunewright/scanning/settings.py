"""Settings by which a stranger's JSON would have code run or a file of ours read, found before any library reads them.

Each rule answers an attack that worked on a peer: SECURITY.md names them. Names of labels and tokens are anybody's, so
tables of those are left alone. Which model types transformers knows by itself, `models` says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError

MAX_JSON_BYTES = 32 * 2**20
TABLES = frozenset({"id2label", "label2id", "added_tokens_decoder", "rank_pattern", "alpha_pattern", "weight_map"})
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json")
OWN_CODE = frozenset({"custom_generate", "custom_pipeline", "custom_pipelines", "trust_remote_code", "megatron_config"})
# Where old files carry a path of their author's machine, it names nothing here; where it does, it was chosen.
PATHS = ("_file", "_files", "_path", "_model")

Setting = tuple[str, Any]  # (dotted path, value)


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises ModelError."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES:,} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ModelError("can't be used (nested too deep)", where=str(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"{path.name} can't be used ({reason})", where=str(path.parent)) from None


def is_settings(path: Path) -> bool:
    """Whether a file is JSON that steers a library, and not a vocabulary or an index."""
    return path.suffix == ".json" and path.name not in VOCABULARIES and not path.name.endswith(".index.json")


def refuse_code(body: Any, path: Path) -> list[str]:
    """Raises ModelError for what would run code; returns the modules that a top-level auto_map names."""
    modules: list[str] = []
    for name, value in _settings(body):
        key = name.rsplit(".", 1)[-1]
        if key == "auto_map" and value:
            if name != key:
                raise _own_code(name, value, path)
            modules = sorted(set(_modules(value)))
        elif _runs_code(key, value):
            raise _own_code(name, value, path)
        elif key.endswith(PATHS):
            _refuse_outside(name, value, path)
        elif key == "transformers_weights" and value is not None:
            _refuse_odd_weights(name, value, path)
    return modules


def _settings(body: Any) -> Iterator[Setting]:
    """Every key of a JSON value with its dotted path, at any depth."""
    waiting: list[Setting] = [("", body)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                dotted = f"{name}.{key}" if name else str(key)
                yield dotted, inner
                if key not in TABLES:
                    waiting.append((dotted, inner))
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value]


def _runs_code(key: str, value: Any) -> bool:
    if key in OWN_CODE:
        return bool(value)
    if "implementation" in key:  # a name with a slash is a repository of kernels, fetched and run
        return any("/" in text or ":" in text for text in _texts(value))
    return key.endswith("_internal") and value not in (None, "eager", "sdpa", True, False)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _modules(auto_map: Any) -> Iterator[str]:
    """own.py for "own.Config", theirs/repo/own.py for "theirs/repo--own.Config"."""
    for text in _texts(auto_map):
        repository, _, name = text.rpartition("--")
        module = name.rpartition(".")[0] or name
        yield f"{repository}/{module}.py" if repository else f"{module}.py"


def _own_code(name: str, value: Any, path: Path) -> ModelError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:59] + "…"
    return ModelError(
        f"asks for code that is not ours ({name} is {shown}), which is never run here; "
        "remove that setting if you trust the rest, or choose another model",
        where=str(path),
        field=name,
    )


def _refuse_outside(name: str, value: Any, path: Path) -> None:
    """A file of this machine that lies outside the folder: it would end up in a vocabulary, and be pushed with it."""
    for text in _texts(value):
        if Path(text).name != text and _is_file(path.parent / text):
            raise ModelError(
                f"{name} names a file outside its folder ({text}), which is not read; remove that setting",
                where=str(path),
                field=name,
            )


def _is_file(path: Path) -> bool:
    try:
        return path.expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return True  # a name that can't even be asked for


def _refuse_odd_weights(name: str, value: Any, path: Path) -> None:
    if not (
        isinstance(value, str)
        and Path(value).name == value
        and value.endswith((".safetensors", ".safetensors.index.json"))
    ):
        raise ModelError(
            f"{name} is {value!r}; expected the name of a safetensors file beside it", where=str(path), field=name
        )
