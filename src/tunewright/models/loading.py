"""From a folder to a model: a base under a new head, or what was saved.

First arrow of the model's side of the flow. safetensors only, never remote code. `finding` says which folder a name
means; what is trained is chosen elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tunewright.data.labels import LabelSpec
from tunewright.errors import ModelError
from tunewright.models import writers
from tunewright.models.adapters import adapter_base, adapter_shapes, check_head, count_labels
from tunewright.models.calibrated import read_calibrated
from tunewright.models.finding import BaseModel as BaseModel
from tunewright.models.finding import from_hub
from tunewright.models.finding import resolve_base as resolve_base  # the other half of `load_base`
from tunewright.models.opened import (
    UNUSABLE,
    fitting_tokenizer,
    give_pad_token,
    in_short,
    load_tokenizer,
    load_weights,
    read_config,
    with_adapter,
)
from tunewright.models.opened import Loaded as Loaded
from tunewright.models.opened import add_pad_token as add_pad_token
from tunewright.models.quiet import quiet as quiet
from tunewright.scanning.models import scan_model

# ---- a base model with a new head ----


def load_base(base: BaseModel, labels: LabelSpec, *, seed: int, dropout: float | None = None) -> Loaded:
    """The base model with a head for these labels; parameters it doesn't bring are drawn from `seed`.

    `dropout` replaces every dropout of the model; None leaves its own. An adapter folder is merged into its base first.
    A head trained for other labels is replaced.
    """
    folder = Path(base.path)
    said = () if base.kind == "packaged" else scan_model(folder)  # those have pinned hashes
    if (folder / "adapter_config.json").exists():
        model, tokenizer, known = _merged(folder, dropout)
        new: frozenset[str] = frozenset()
    else:
        config = read_config(folder, dropout)
        known = _labels(config, folder)
        _label_config(config, labels)
        model, new = _load_model(folder, config, seed)
        tokenizer = fitting_tokenizer(folder, model)
    if known is None:  # a language model: only its body serves
        model, new = _new_head(model, labels, seed)
    elif _brings_head(model, new) and not _same_labels(known, labels):
        said += (f"the base was trained for {_in_words(known)}; its head is replaced",)
        model, new = _new_head(model, labels, seed)
    _label_config(model.config, labels)
    added = tokenizer.pad_token_id is None
    said += give_pad_token(model, tokenizer)
    return Loaded(model, tokenizer, labels, new, said, needs_pad_token=added)


def _merged(folder: Path, dropout: float | None) -> tuple[Any, Any, LabelSpec | None]:
    """An adapter's model in one piece, its tokenizer, and the labels it was trained for: None if it writes."""
    kind = writers.kind_of(folder)
    saved = writers.saved_writer(folder, kind, dropout=dropout) if kind else _saved_adapter(folder, None, dropout)
    return saved.model.merge_and_unload(), saved.tokenizer, saved.labels


def _brings_head(model: Any, new: frozenset[str]) -> bool:
    body = f"{model.base_model_prefix}."
    return not any(name in new for name, _ in model.named_parameters() if not name.startswith(body))


def _same_labels(known: LabelSpec, labels: LabelSpec) -> bool:
    """Whether outputs keep their meaning; LABEL_0, LABEL_1… are names that nobody gave."""
    unnamed = known.kind == "single" and all(name == f"LABEL_{i}" for i, name in enumerate(known.names))
    same = [name.casefold() for name in known.names] == [name.casefold() for name in labels.names]
    fits = known.num_outputs == labels.num_outputs
    return known.kind == labels.kind and fits and (same or unnamed)


def _in_words(labels: LabelSpec) -> str:
    names = labels.names[:6]
    return "numbers" if labels.kind == "number" else ", ".join(names) + (", …" if len(labels.names) > 6 else "")


def _new_head(model: Any, labels: LabelSpec, seed: int) -> tuple[Any, frozenset[str]]:
    """The same body under a fresh head, when a merged adapter was trained for something else."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    _label_config(model.config, labels)
    fresh = AutoModelForSequenceClassification.from_config(model.config, trust_remote_code=False)
    body = f"{model.base_model_prefix}."
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(body)}
    fresh.load_state_dict(own, strict=False)
    return fresh, frozenset(name for name, _ in fresh.named_parameters() if name not in own)


def _label_config(config: Any, labels: LabelSpec) -> None:
    config.num_labels = labels.num_outputs
    config.id2label = dict(labels.id2label)
    config.label2id = dict(labels.label2id)
    config.problem_type = labels.problem_type
    config.label_values = list(labels.raw)  # so that a saved model still knows 0 and 1 by their names


def _load_model(folder: Path, config: Any, seed: int) -> tuple[Any, frozenset[str]]:
    """The classifier, and the names of its newly initialised parameters."""
    from transformers import AutoModelForSequenceClassification

    return load_weights(AutoModelForSequenceClassification, folder, config, seed)


# ---- what was saved ----


def load_saved(folder: Path | str, device: str = "cpu", *, endpoint: str | None = None) -> Loaded:
    """A saved model: our `model/` folder, any adapter or full folder, or a Hub id. Raises ModelError, NetworkError.

    A language model has no labels.
    """
    path = Path(folder)
    if not path.is_dir():
        path = Path(from_hub(str(folder), endpoint=endpoint).path)
    scan_model(path)
    kind = writers.kind_of(path)
    if kind:
        loaded = writers.saved_writer(path, kind, endpoint=endpoint)
    else:
        loaded = _saved_adapter(path, endpoint) if (path / "adapter_config.json").exists() else _saved_whole(path)
    loaded.model.to(device).eval()
    tokenizer = loaded.tokenizer
    longest = tokenizer.model_max_length if tokenizer.model_max_length < 1 << 20 else None
    read = read_calibrated(path, loaded.labels.names) if loaded.labels is not None else loaded.calibrated
    return replace(loaded, max_length=longest, truncate=tokenizer.truncation_side, calibrated=read)


def _saved_whole(path: Path) -> Loaded:
    config = read_config(path)
    labels = _labels(config, path)
    model, new = _load_model(path, config, seed=0)
    if new:
        raise ModelError(
            f"no classifier: {sorted(new)[0]} isn't in the weights; give the folder of a trained classifier",
            where=str(path),
        )
    return Loaded(model, fitting_tokenizer(path, model), labels)


def _saved_adapter(path: Path, endpoint: str | None, dropout: float | None = None) -> Loaded:
    base = adapter_base(path, endpoint)
    shapes = adapter_shapes(path)
    if (path / "config.json").exists():
        config = read_config(path)
    else:
        config = read_config(Path(base.path))
        count_labels(config, shapes)
    labels = _labels(config, path)
    loaded = load_base(base, labels, seed=0, dropout=dropout)
    check_head(loaded.new_parameters, shapes, path)
    if config.pad_token_id is not None:
        loaded.model.config.pad_token_id = config.pad_token_id
    model = with_adapter(loaded.model, path, shapes)
    has_own = (path / "tokenizer.json").exists()
    return Loaded(model, load_tokenizer(path) if has_own else loaded.tokenizer, labels)


def _labels(config: Any, path: Path) -> LabelSpec:
    try:
        return LabelSpec.from_config(config)
    except UNUSABLE as error:
        raise ModelError(f"the labels in config.json can't be used ({in_short(error)})", where=str(path)) from None
