"""From a folder to a model: a base under a new head, or what was saved.

First arrow of the model's side of the flow. safetensors only, never remote code. `finding` says which folder a name
means; what is trained is chosen elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from tunewright.data.labels import LabelSpec
from tunewright.errors import ModelError
from tunewright.models.adapters import adapter_base, adapter_shapes, check_head, check_tensors, count_labels
from tunewright.models.finding import BaseModel, from_hub
from tunewright.models.finding import resolve_base as resolve_base  # the other half of `load_base`
from tunewright.models.quiet import quiet
from tunewright.scanning.models import scan_model

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
)
# What transformers and PEFT raise when a file isn't what it should be; they check little before they use it.
UNUSABLE = (
    ValueError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, and what loading found."""

    model: Any
    tokenizer: Any
    labels: LabelSpec
    new_parameters: frozenset[str] = frozenset()  # not in the files: newly initialised
    said: tuple[str, ...] = ()
    needs_pad_token: bool = False  # the tokenizer has none of its own
    max_length: int | None = None
    truncate: str = "right"


# ---- a base model with a new head ----


def load_base(base: BaseModel, labels: LabelSpec, *, seed: int, dropout: float | None = None) -> Loaded:
    """The base model with a head for these labels; parameters it doesn't bring are drawn from `seed`.

    `dropout` replaces every dropout of the model; None leaves its own. An adapter folder is merged into its base first.
    A head trained for other labels is replaced.
    """
    folder = Path(base.path)
    said = () if base.kind == "packaged" else scan_model(folder)  # those have pinned hashes
    if (folder / "adapter_config.json").exists():
        saved = _saved_adapter(folder, None, dropout)
        model, tokenizer, new = saved.model.merge_and_unload(), saved.tokenizer, frozenset()
        known = saved.labels
    else:
        config = _config(folder, dropout)
        known = _labels(config, folder)
        _label_config(config, labels)
        model, new = _load_model(folder, config, seed)
        tokenizer = _fitting_tokenizer(folder, model)
    if _brings_head(model, new) and not _same_labels(known, labels):
        said += (f"the base was trained for {_in_words(known)}; its head is replaced",)
        model, new = _new_head(model, labels, seed)
    _label_config(model.config, labels)
    added = tokenizer.pad_token_id is None
    said += _give_pad_token(model, tokenizer)
    return Loaded(model, tokenizer, labels, new, said, needs_pad_token=added)


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
    """The same body under a fresh head, when a merged adapter was trained for other labels."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    _label_config(model.config, labels)
    fresh = AutoModelForSequenceClassification.from_config(model.config, trust_remote_code=False)
    body = f"{model.base_model_prefix}."
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(body)}
    fresh.load_state_dict(own, strict=False)
    return fresh, frozenset(name for name, _ in fresh.named_parameters() if not name.startswith(body))


def _config(folder: Path, dropout: float | None) -> Any:
    config = _saved_config(folder)
    if dropout is not None:
        for name in [n for n, value in vars(config).items() if is_dropout(n, value)]:
            setattr(config, name, dropout)
    return config


def is_dropout(name: str, value: Any) -> bool:
    """Whether a config's value is the rate of some dropout: hidden_dropout_prob, attn_pdrop, layerdrop, ..."""
    # ESM's token_dropout is a yes or no, and scales what it embeds.
    return "drop" in name and isinstance(value, (int, float)) and not isinstance(value, bool)


def _label_config(config: Any, labels: LabelSpec) -> None:
    config.num_labels = labels.num_outputs
    config.id2label = dict(labels.id2label)
    config.label2id = dict(labels.label2id)
    config.problem_type = labels.problem_type
    config.label_values = list(labels.raw)  # so that a saved model still knows 0 and 1 by their names


def _load_model(folder: Path, config: Any, seed: int) -> tuple[Any, frozenset[str]]:
    """The classifier, and the names of its newly initialised parameters."""
    from transformers import AutoModelForSequenceClassification

    if not list(folder.glob("*.safetensors")):
        raise ModelError("no .safetensors here; only safetensors weights are loaded", where=str(folder))
    torch.manual_seed(seed)
    try:
        with quiet():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                str(folder),
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except UNUSABLE as error:
        raise ModelError(f"{config.model_type} model can't be loaded ({_in_short(error)})", where=str(folder)) from None
    return model, _new_parameters(model, info, folder)


def _new_parameters(model: Any, info: Any, folder: Path) -> frozenset[str]:
    """What the files didn't bring; a head of another size is new, a body of another size is someone else's."""
    body = f"{model.base_model_prefix}."
    mismatched = {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    foreign = sorted(name for name in mismatched if name.startswith(body))
    if foreign:
        raise ModelError(f"the weights don't fit config.json: {foreign[0]} has another size", where=str(folder))
    new = frozenset({*info["missing_keys"], *mismatched})
    inside = [name for name, _ in model.named_parameters() if name.startswith(body)]
    if len(new.intersection(inside)) > len(inside) / 2:
        raise ModelError(f"most weights of a {model.config.model_type} model are missing here", where=str(folder))
    return new


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    # Without these, transformers 5 makes an empty tokenizer and says nothing.
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError("no tokenizer here; expected tokenizer.json beside the weights", where=str(folder))
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a bad file
        raise ModelError(f"tokenizer can't be loaded ({_in_short(error)})", where=str(folder)) from None
    if not tokenizer.is_fast:
        raise ModelError("only fast tokenizers (tokenizer.json) are supported", where=str(folder))
    return tokenizer


def _fitting_tokenizer(folder: Path, model: Any) -> Any:
    """A tokenizer whose every word has a row in the embedding; added tokens without one are never met in a text."""
    tokenizer, rows = _tokenizer(folder), model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"tokenizer.json has a vocab of {tokenizer.vocab_size:,} tokens, the model knows {rows:,}; they aren't "
            "of the same model",
            where=str(folder),
        )
    return tokenizer


def _give_pad_token(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """A padded batch needs a pad token; where there is none an existing one serves, since masks come from lengths."""
    if tokenizer.pad_token_id is None:
        token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
        if token is None:
            raise ModelError(
                "the tokenizer has no pad, eos, unk or bos token; add a pad_token to tokenizer_config.json"
            )
        tokenizer.pad_token = token
        model.config.pad_token_id = tokenizer.pad_token_id
        return (f"no pad token: {token!r} serves, with masks from lengths",)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return ()


def add_pad_token(model: Any, tokenizer: Any) -> None:
    """A pad token of its own, with a row in the embeddings (full fine-tuning only: an adapter couldn't carry it)."""
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    with quiet():
        model.resize_token_embeddings(len(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id


# ---- what was saved ----


def load_saved(folder: Path | str, device: str = "cpu", *, endpoint: str | None = None) -> Loaded:
    """A saved model: our `model/` folder, any adapter or full folder, or a Hub id. Raises ModelError, NetworkError."""
    path = Path(folder)
    if not path.is_dir():
        path = Path(from_hub(str(folder), endpoint=endpoint).path)
    scan_model(path)
    loaded = _saved_adapter(path, endpoint) if (path / "adapter_config.json").exists() else _saved_whole(path)
    loaded.model.to(device).eval()
    tokenizer = loaded.tokenizer
    longest = tokenizer.model_max_length if tokenizer.model_max_length < 1 << 20 else None
    return replace(loaded, max_length=longest, truncate=tokenizer.truncation_side)


def _saved_whole(path: Path) -> Loaded:
    config = _saved_config(path)
    labels = _labels(config, path)
    model, new = _load_model(path, config, seed=0)
    if new:
        raise ModelError(
            f"no classifier: {sorted(new)[0]} isn't in the weights; give the folder of a trained classifier",
            where=str(path),
        )
    return Loaded(model, _fitting_tokenizer(path, model), labels)


def _saved_adapter(path: Path, endpoint: str | None, dropout: float | None = None) -> Loaded:
    from peft import PeftModel

    base = adapter_base(path, endpoint)
    shapes = adapter_shapes(path)
    if (path / "config.json").exists():
        config = _saved_config(path)
    else:
        config = _saved_config(Path(base.path))
        count_labels(config, shapes)
    labels = _labels(config, path)
    loaded = load_base(base, labels, seed=0, dropout=dropout)
    check_head(loaded.new_parameters, shapes, path)
    if config.pad_token_id is not None:
        loaded.model.config.pad_token_id = config.pad_token_id
    try:
        with quiet():
            model = PeftModel.from_pretrained(loaded.model, str(path))
    except UNUSABLE as error:
        raise ModelError(f"adapter can't be loaded ({_in_short(error)})", where=str(path)) from None
    check_tensors(model, shapes, path)
    has_own = (path / "tokenizer.json").exists()
    return Loaded(model, _tokenizer(path) if has_own else loaded.tokenizer, labels)


def _saved_config(path: Path) -> Any:
    from transformers import AutoConfig

    if not (path / "config.json").is_file():
        raise ModelError("no config.json here; a model folder has config.json and model.safetensors", where=str(path))
    try:
        with quiet():
            # Said aloud: left to itself, transformers asks on the terminal whether to run a folder's own code.
            config = AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
            config._attn_implementation = None  # a config may name a kernel of the Hub: somebody's code
            return config
    except UNUSABLE as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                "this model brings its own Python code, which is never run here", where=str(path)
            ) from None
        raise ModelError(f"config.json can't be used ({_in_short(error)})", where=str(path)) from None


def _labels(config: Any, path: Path) -> LabelSpec:
    try:
        return LabelSpec.from_config(config)
    except UNUSABLE as error:
        raise ModelError(f"the labels in config.json can't be used ({_in_short(error)})", where=str(path)) from None


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
