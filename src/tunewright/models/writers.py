"""A language model from a folder: one that writes on, one that reads and then writes, or one that fills gaps.

The other way of the model's side, beside `loading` (classifiers). A base is read with the head it brings; where an
encoder brings none for gaps, it gets a new one. safetensors only, never remote code, fp32. What learns is chosen in
`trainable`; saving is in `saving`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tunewright.data.batching import Texts, lay_end_to_end
from tunewright.errors import ModelError
from tunewright.models.adapters import TASKS, adapter_base, adapter_shapes, adapter_task, check_head
from tunewright.models.finding import BaseModel
from tunewright.models.forward import Forward, in_evaluation
from tunewright.models.heads import is_in
from tunewright.models.language_head import LanguageHead
from tunewright.models.opened import (
    Loaded,
    fitting_tokenizer,
    give_pad_token,
    load_weights,
    read_config,
    with_adapter,
)
from tunewright.scanning.models import scan_model

WriterKind = Literal["causal", "encoder-decoder", "masked"]
_DOES = {
    "causal": "writes from left to right",
    "encoder-decoder": "reads a text with an encoder and writes another",
    "masked": "reads in both directions and fills gaps",
}


def load_writer(base: BaseModel, kind: WriterKind | None, *, seed: int, dropout: float | None = None) -> Loaded:
    """The base as a language model of this kind; None: what its config says, an encoder without a head fills gaps.

    `dropout` replaces every dropout of the model; None leaves its own. An adapter folder is merged into its base first.
    Only a masked head may be new, drawn from `seed`. Raises ModelError for a base of another kind.
    """
    return _loaded(base, kind, seed, dropout)


def _loaded(
    base: BaseModel, kind: WriterKind | None, seed: int, dropout: float | None, words: Path | None = None
) -> Loaded:
    """`words`: the folder of the tokenizer, where it isn't the base's; a large one takes longer than the weights."""
    folder = Path(base.path)
    said = () if base.kind == "packaged" else scan_model(folder)  # those have pinned hashes
    if (folder / "adapter_config.json").exists():
        return _merged(folder, kind, said, dropout, words)
    config = read_config(folder, dropout)
    found = _natural_kind(config, folder)
    _refuse_other_kind(config, found, kind, folder)
    model, new = load_weights(_auto(found), folder, config, seed)
    if new and found != "masked":
        raise ModelError(
            f"{sorted(new)[0]} isn't in the weights: this {config.model_type} model was never taught to write; give "
            "one that has its head",
            where=str(folder),
            field="model",
        )
    tokenizer = fitting_tokenizer(words or folder, model)
    _check_mask_token(tokenizer, found, folder)
    if new:
        started = ", ".join(new_modules(model, new))
        said += (f"the base brings no head for masked words: {started} start new, at random",)
    added = tokenizer.pad_token_id is None
    said += give_pad_token(model, tokenizer, writes=True)
    return Loaded(model, tokenizer, None, new, said, needs_pad_token=added, kind=found)


def _merged(
    folder: Path, kind: WriterKind | None, said: tuple[str, ...], dropout: float | None, words: Path | None
) -> Loaded:
    found = kind_of(folder)
    if found is None:
        raise ModelError(
            "this adapter belongs to a classifier; give the base model it was made for",
            where=str(folder),
            field="model",
        )
    saved = saved_writer(folder, found, dropout=dropout)
    model = saved.model.merge_and_unload()
    _refuse_other_kind(model.config, found, kind, folder)
    tokenizer = fitting_tokenizer(words, model) if words else saved.tokenizer
    said += give_pad_token(model, tokenizer, writes=True)
    return Loaded(model, tokenizer, None, said=said, needs_pad_token=saved.needs_pad_token, kind=found)


def saved_writer(
    path: Path, kind: WriterKind, *, endpoint: str | None = None, dropout: float | None = None, name: str = "default"
) -> Loaded:
    """A saved language model, scanned already: an adapter (called `name`) on its base, or a whole one. ModelError."""
    if not (path / "adapter_config.json").exists():
        loaded = load_writer(BaseModel(str(path), str(path), "folder"), kind, seed=0, dropout=dropout)
        if loaded.new_parameters:
            first = sorted(loaded.new_parameters)[0]
            raise ModelError(f"no language model: {first} isn't in the weights", where=str(path))
        return loaded
    base, shapes = adapter_base(path, endpoint), adapter_shapes(path)
    words = path if (path / "tokenizer.json").exists() else None
    loaded = _loaded(base, kind, 0, dropout, words)
    made = new_modules(loaded.model, loaded.new_parameters)
    check_head([name for name in loaded.new_parameters if is_in(name, made)], shapes, path, "head for masked words")
    model = with_adapter(loaded.model, path, shapes, name)
    return Loaded(model, loaded.tokenizer, None, needs_pad_token=loaded.needs_pad_token, kind=kind)


# ---- which kind ----


def kind_of(path: Path) -> WriterKind | None:
    """The kind of a saved language model, by what its files say; None: it is no language model."""
    if (path / "adapter_config.json").exists():
        task = adapter_task(path)
        if task is not None or not (path / "config.json").exists():
            return TASKS.get(task or "")
    return _declared_kind(read_config(path)) if (path / "config.json").exists() else None


def kind_of_model(model: Any) -> WriterKind | None:
    """The kind of a language model in memory, plain or wrapped by PEFT; None: it is none."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return _kind_of_class(type(inner).__name__, inner.config.is_encoder_decoder)


def _declared_kind(config: Any) -> WriterKind | None:
    named = next(iter(getattr(config, "architectures", None) or ()), "")
    return _kind_of_class(named, config.is_encoder_decoder)


def _kind_of_class(named: str, reads_first: bool) -> WriterKind | None:
    """By the name of transformers' class; None for a classifier, or for a body without a head."""
    from transformers.models.auto import modeling_auto as known

    # Bart's one class is in two of them: what writes from a text comes first.
    if reads_first and named in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values():
        return "encoder-decoder"
    if named in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return "causal"
    return "masked" if named in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values() else None


def _natural_kind(config: Any, folder: Path) -> WriterKind:
    """What this base can be, also when it has no head or one for labels."""
    from transformers.models.auto import modeling_auto as known

    declared, model_type = _declared_kind(config), config.model_type
    if declared:
        return declared
    if config.is_encoder_decoder and model_type in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return "encoder-decoder"
    if model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:  # before causal: BERT is in both, for old experiments
        return "masked"
    if model_type in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "causal"
    raise ModelError(f"a {model_type} model has no head for words", where=str(folder), field="model")


def _refuse_other_kind(config: Any, found: WriterKind, wanted: WriterKind | None, folder: Path) -> None:
    if wanted not in (None, found):
        says = f"a {config.model_type} model {_DOES[found]}; this task needs one that {_DOES[wanted]}"
        raise ModelError(says, where=str(folder), field="model")


def _auto(kind: WriterKind) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    autos = {
        "causal": AutoModelForCausalLM,
        "encoder-decoder": AutoModelForSeq2SeqLM,
        "masked": AutoModelForMaskedLM,
    }
    return autos[kind]


def _check_mask_token(tokenizer: Any, kind: WriterKind, folder: Path) -> None:
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise ModelError("the tokenizer has no mask token, so no word can be hidden", where=str(folder), field="model")


# ---- what is new, and what is said ----


def new_modules(model: Any, new_parameters: Iterable[str]) -> tuple[str, ...]:
    """Dotted names of the modules that loading had to make; they learn whole, beside adapters too.

    Not among them: the word's bias beside a tied embedding, which starts at zero and is no module of its own.
    """
    tied = model.get_output_embeddings()
    holders = dict.fromkeys(name.rpartition(".")[0] for name in sorted(new_parameters))
    return tuple(name for name in holders if not any(one is tied for one in model.get_submodule(name).modules()))


@torch.no_grad()
def probe_logits(forward: Forward, probe: Iterable[list[int]], longest: int = 64) -> np.ndarray:
    """Logits [N, V], float32, at the last token of each probe text, cut to its first tokens."""
    texts = [list(ids[:longest]) for ids in probe if len(ids)] or [[0]]
    device = next(forward.model.parameters()).device
    with in_evaluation(forward.model):
        found = [_last_logits(forward, lay_end_to_end([ids], device)) for ids in texts]
    return torch.stack(found).cpu().numpy()


def _last_logits(forward: Forward, texts: Texts) -> torch.Tensor:
    kind = kind_of_model(forward.model)
    if kind == "causal":
        return LanguageHead.of(forward.model).logits(forward.hidden(texts)[-1:])[0]
    inputs = {"input_ids": texts.input_ids[None]}
    if kind == "encoder-decoder":
        inputs["decoder_input_ids"] = texts.input_ids[None]
    with forward.computing(texts):
        return forward.inner(**inputs).logits[0, -1].float()
