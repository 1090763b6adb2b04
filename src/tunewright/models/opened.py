"""What every model needs from its folder, whatever it is for: config, weights, tokenizer, adapter, pad token.

Under `loading` (classifiers) and `writers` (language models), which say what is made of it. safetensors only, never
remote code; the folder was scanned by whoever opens it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from tunewright.data.labels import LabelSpec
from tunewright.errors import ModelError
from tunewright.models.adapters import check_tensors
from tunewright.models.calibrated import AS_IT_IS, Calibrated
from tunewright.models.quiet import quiet

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
)
NAMES_OF_PAD = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>")  # there, though nobody says so
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
# causal: one word after another. encoder-decoder: the same, from a text that was read first. masked: fills gaps.
Kind = Literal["classifier", "causal", "encoder-decoder", "masked"]


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, and what loading found."""

    model: Any
    tokenizer: Any
    labels: LabelSpec | None  # None: a language model
    new_parameters: frozenset[str] = frozenset()  # not in the files: newly initialised
    said: tuple[str, ...] = ()
    needs_pad_token: bool = False  # the tokenizer has none of its own
    max_length: int | None = None
    truncate: str = "right"
    kind: Kind = "classifier"
    calibrated: Calibrated = AS_IT_IS  # of a classifier that was saved with it


# ---- config and weights ----


def read_config(path: Path, dropout: float | None = None) -> Any:
    """config.json; `dropout` replaces every dropout in it, None leaves its own."""
    from transformers import AutoConfig

    if not (path / "config.json").is_file():
        raise ModelError("no config.json here; a model folder has config.json and model.safetensors", where=str(path))
    try:
        with quiet():
            # Said aloud: left to itself, transformers asks on the terminal whether to run a folder's own code.
            config: Any = AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except UNUSABLE as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                "this model brings its own Python code, which is never run here", where=str(path)
            ) from None
        raise ModelError(f"config.json can't be used ({in_short(error)})", where=str(path)) from None
    config._attn_implementation = None  # a config may name a kernel of the Hub: somebody's code
    for name in [n for n, value in vars(config).items() if dropout is not None and is_dropout(n, value)]:
        setattr(config, name, dropout)
    return config


def is_dropout(name: str, value: Any) -> bool:
    """Whether a config's value is the rate of some dropout: hidden_dropout_prob, attn_pdrop, layerdrop, ..."""
    # ESM's token_dropout is a yes or no, and scales what it embeds.
    return "drop" in name and isinstance(value, (int, float)) and not isinstance(value, bool)


def load_weights(auto: Any, folder: Path, config: Any, seed: int) -> tuple[Any, frozenset[str]]:
    """A model of one of transformers' Auto classes, in fp32, and the names of its newly initialised parameters."""
    if not list(folder.glob("*.safetensors")):
        raise ModelError("no .safetensors here; only safetensors weights are loaded", where=str(folder))
    torch.manual_seed(seed)
    try:
        with quiet():
            model, info = auto.from_pretrained(
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
        raise ModelError(f"{config.model_type} model can't be loaded ({in_short(error)})", where=str(folder)) from None
    return model, _new_parameters(model, info, folder)


def _new_parameters(model: Any, info: Any, folder: Path) -> frozenset[str]:
    """What the files didn't bring; a head of another size is new, a body of another size is someone else's."""
    body = f"{model.base_model_prefix}."
    body = body if hasattr(model, model.base_model_prefix) else ""  # T5 keeps its body in itself
    mismatched = {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    foreign = sorted(name for name in mismatched if name.startswith(body))
    if foreign:
        raise ModelError(f"the weights don't fit config.json: {foreign[0]} has another size", where=str(folder))
    new = frozenset({*info["missing_keys"], *mismatched})
    inside = [name for name, _ in model.named_parameters() if name.startswith(body)]
    if len(new.intersection(inside)) > len(inside) / 2:
        raise ModelError(f"most weights of a {model.config.model_type} model are missing here", where=str(folder))
    return new


def with_adapter(model: Any, path: Path, shapes: Mapping[str, tuple[int, ...]], name: str = "default") -> Any:
    """The model under the adapter of this folder, every tensor of which has found its place."""
    from peft import PeftModel

    try:
        with quiet():
            wrapped = PeftModel.from_pretrained(model, str(path), adapter_name=name)
    except UNUSABLE as error:
        raise ModelError(f"adapter can't be loaded ({in_short(error)})", where=str(path)) from None
    check_tensors(wrapped, shapes, path, name)
    return wrapped


# ---- tokenizer ----


def load_tokenizer(folder: Path) -> Any:
    """The folder's own; fast ones alone."""
    from transformers import AutoTokenizer

    # Without these, transformers 5 makes an empty tokenizer and says nothing.
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError("no tokenizer here; expected tokenizer.json beside the weights", where=str(folder))
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a bad file
        raise ModelError(f"tokenizer can't be loaded ({in_short(error)})", where=str(folder)) from None
    if not tokenizer.is_fast:
        raise ModelError("only fast tokenizers (tokenizer.json) are supported", where=str(folder))
    return tokenizer


def fitting_tokenizer(folder: Path, model: Any) -> Any:
    """A tokenizer whose every word has a row in the embedding; added tokens without one are never met in a text."""
    tokenizer, rows = load_tokenizer(folder), model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"tokenizer.json has a vocab of {tokenizer.vocab_size:,} tokens, the model knows {rows:,}; they aren't "
            "of the same model",
            where=str(folder),
        )
    return tokenizer


def give_pad_token(model: Any, tokenizer: Any, *, writes: bool = False) -> tuple[str, ...]:
    """A padded batch needs a pad token; where there is none an existing one serves, since masks come from lengths.

    Where the model `writes`, EOS is the last choice: other programs learn no token that is called padding.
    """
    if tokenizer.pad_token_id is None:
        ends = (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token)
        choices = (*named_pads(model, tokenizer), *ends[1:], ends[0]) if writes else ends
        token = next(filter(None, choices), None)
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


def named_pads(model: Any, tokenizer: Any) -> list[str]:
    """Tokens called padding that have a row in the embedding."""
    rows, added = model.get_input_embeddings().weight.shape[0], tokenizer.get_added_vocab()
    return [name for name in NAMES_OF_PAD if added.get(name, rows) < rows]


def add_pad_token(model: Any, tokenizer: Any) -> None:
    """A pad token of its own, with a row in the embeddings (full fine-tuning only: an adapter couldn't carry it)."""
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    with quiet():
        model.resize_token_embeddings(len(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id


def in_short(error: Exception) -> str:
    """An error of a library on one line."""
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
