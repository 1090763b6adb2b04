"""From a GGUF file to a folder of safetensors, config and tokenizer, through transformers' own reader.

Second step of `gguf`. transformers walks through the vocabulary in Python each time it reads a setting, which takes
longer than all the rest; so it gets a copy of the file without it. What its reader would drop in silence is put right
or refused: weights that no parameter takes, widths of heads, caps of logits, scaled positions. Then the folder is
loaded fresh and must answer as the model in memory. Where the folder goes, and when it is made, `gguf` says.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from tunewright import durable
from tunewright.errors import ModelError, TunewrightError
from tunewright.models.gguf_header import EMBEDDINGS, SAFETENSORS, Header
from tunewright.models.quiet import quiet

TOLERANCE = 1e-4  # of logits, between the model in memory and the folder
PROBES = ("The capital of France is", " Two  spaces,\na line, 1,234 and naïve 漢字 🙂.")
# A llama 3 file holds what its positions are divided by, and not the four numbers that this came from. They are the
# same in all of them but for the factor.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
FREQUENCIES = "rope_freqs.weight"
# Settings that transformers' reader leaves at the default of the type, though the file has them.
UNREAD = {
    "attention.key_length": "head_dim",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}


def convert(whole: Path, header: Header, work: Path, to: Path, name: str) -> None:
    """Write the folder `to`. `work` takes a copy of the weights for a while; `name` is what errors call the file."""
    slim = _without_vocabulary(whole, header, work)
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the reader draws a bar of its own
        try:
            tokenizer = _tokenizer(whole, header, name)
            config = _config(slim, header, whole, name)
            model = _model(slim, config, header, name)
            expected = _answers(model, tokenizer)
            _save(model, tokenizer, header, to)
            del model  # the folder's is the second one in memory
            _check_folder(expected, to, name)
        except (TunewrightError, MemoryError):
            raise
        except Exception as error:  # tokenizers raises bare Exception, gguf and transformers whatever they meet
            _refuse_full_disk(error)
            words = " ".join(str(error).split())[:200] or type(error).__name__
            raise ModelError(f"can't be converted ({words}); {SAFETENSORS}", where=name, field="model") from None


def _refuse_full_disk(error: Exception) -> None:
    """The system's own failures are no fault of the file: the caller says them."""
    if isinstance(error, SafetensorError) and "os error" in str(error):
        raise durable.as_os_error(error) from None
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _without_vocabulary(whole: Path, header: Header, work: Path) -> Path:
    """The same GGUF file without the lists of words, scores and merges, where transformers' old reader takes it."""
    from transformers.integrations.gguf import is_gguf_arch_supported

    if is_gguf_arch_supported(header.architecture):
        return whole  # its new reader is quick, and counts the words itself
    write_without_vocabulary(whole, header, work / "weights.gguf")
    return work / "weights.gguf"


def write_without_vocabulary(whole: Path, header: Header, to: Path) -> None:
    """The same settings and weights, bit by bit."""
    dropped = ("tokenizer.ggml.tokens", "scores", "token_type", "merges", "precompiled_charsmap", "chat_template")
    kept = [span for key, span in header.spans.items() if not (key.startswith("tokenizer.") and key.endswith(dropped))]
    with whole.open("rb") as source, to.open("wb") as target:
        target.write(source.read(8) + struct.pack("<QQ", len(header.tensors), len(kept)))
        for begin, end in (*kept, header.table):
            source.seek(begin)
            target.write(source.read(end - begin))
        target.write(bytes(-target.tell() % header.alignment))
        source.seek(header.data)
        shutil.copyfileobj(source, target, 1 << 24)


# ---- settings ----


def _config(slim: Path, header: Header, whole: Path, name: str) -> Any:
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(str(slim.parent), gguf_file=slim.name, local_files_only=True)
    config.vocab_size = header.tensors[EMBEDDINGS].shape[-1]
    vars(config).pop("_model_name_or_path", None)  # a name that nobody can load
    for key, setting in UNREAD.items():
        if header.own(key) is not None and hasattr(config, setting):
            setattr(config, setting, header.own(key))
    _check_positions(config, header, name)
    if FREQUENCIES in header.tensors:
        config.rope_parameters = _llama3_positions(config, header, whole, name)
    return config


def _check_positions(config: Any, header: Header, name: str) -> None:
    """Rotary positions that transformers' reader drops change every answer, and no error says so."""
    kind, factor = header.own("rope.scaling.type"), header.own("rope.scaling.factor")
    if kind not in (None, "none") and factor != 1:
        says = f"its positions are scaled ({kind!s:.20}, factor {factor:g}), which transformers doesn't read from GGUF"
        raise ModelError(f"{says}; {SAFETENSORS}", where=name, field="rope.scaling.type")
    base, found = header.own("rope.freq_base"), _rotary_bases(config)
    if base is not None and not any(math.isclose(base, theta, rel_tol=1e-6) for theta in found):
        says = (
            f"its positions turn by {base:g}, and transformers reads {', '.join(map('{:g}'.format, found)) or 'none'}"
        )
        raise ModelError(f"{says}; {SAFETENSORS}", where=name, field="rope.freq_base")


def _rotary_bases(config: Any) -> list[float]:
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    return [float(kind["rope_theta"]) for kind in kinds if "rope_theta" in kind]


def _llama3_positions(config: Any, header: Header, whole: Path, name: str) -> dict[str, Any]:
    """Llama 3's scaling, which transformers' reader drops: found again from the divisors in the file."""
    tensor = header.tensors[FREQUENCIES]
    given = np.fromfile(whole, "<f4", math.prod(tensor.shape), offset=header.data + tensor.offset)
    scaling = {"rope_type": "llama3", "factor": float(given.max()), **LLAMA3, "rope_theta": _rotary_bases(config)[0]}
    if tensor.kind != 0 or not np.allclose(given, llama3_divisors(len(given), scaling), rtol=1e-3):
        says = "its positions are scaled in a way that transformers doesn't read from GGUF"
        raise ModelError(f"{says}; {SAFETENSORS}", where=name, field=FREQUENCIES)
    return scaling


def llama3_divisors(count: int, scaling: dict[str, Any]) -> np.ndarray:
    """What Llama 3 divides each rotary frequency by: 1 for short waves, the factor for long ones, between them both."""
    waves = 2 * math.pi * scaling["rope_theta"] ** (np.arange(count) / count)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] / waves
    share = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - share) / scaling["factor"] + share)


# ---- weights and words ----


def _model(slim: Path, config: Any, header: Header, name: str) -> Any:
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        str(slim.parent),
        gguf_file=slim.name,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are named below
    )
    model, info = loaded
    _detach(model)
    _refuse_losses(model, [*info["missing_keys"], *info["mismatched_keys"]], header, name)
    return model


def _detach(model: Any) -> None:
    """The weights are plain numbers now; a quantiser that stays would refuse to save them."""
    model.hf_quantizer = None
    for owner, left in ((model, "is_quantized"), (model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(owner, left):
            delattr(owner, left)


def _refuse_losses(model: Any, missing: list[Any], header: Header, name: str) -> None:
    """Every weight of the file has come into the model, and every weight of the model from the file."""
    if missing:
        first = missing[0] if isinstance(missing[0], str) else missing[0][0]
        raise ModelError(f"gives no weights, or some of another size, for {first}; {SAFETENSORS}", where=name)
    twice = {FREQUENCIES, *(["output.weight"] if model.config.tie_word_embeddings else [])}
    held = sum(math.prod(tensor.shape) for tensor in header.tensors.values() if tensor.name not in twice)
    weights = _weights(model)
    read = sum(weight.numel() for weight in weights)
    if read != held:
        raise ModelError(f"transformers reads {read:,} of its {held:,} weights; {SAFETENSORS}", where=name)
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise ModelError("is damaged: weights in it are no numbers; download it again", where=name)


def _weights(model: Any) -> list[Tensor]:
    """Each once, tied ones too."""
    return list({weight.data_ptr(): weight for weight in model.state_dict().values()}.values())


def _tokenizer(whole: Path, header: Header, name: str) -> Any:
    """Exactly what the file describes. AutoTokenizer would read the settings once more, in 20 seconds."""
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(
        str(whole.parent), gguf_file=whole.name, local_files_only=True
    )
    if len(tokenizer) > (num_words := header.values["tokenizer.ggml.tokens"]):
        tokenizer = _without_words_above(num_words, tokenizer)
    for left in ("local_files_only", "is_local"):  # how it was loaded is nothing to save
        tokenizer.init_kwargs.pop(left, None)
    if header.own("context_length"):
        tokenizer.model_max_length = header.own("context_length")
    for token, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        given, found = header.values.get(f"tokenizer.ggml.{key}_token_id"), getattr(tokenizer, f"{token}_token_id")
        if given is not None and found != given:
            says = f"its {token} token is number {given}, and transformers reads {found}; {SAFETENSORS}"
            raise ModelError(says, where=name, field=f"tokenizer.ggml.{key}_token_id")
    return tokenizer


def _without_words_above(num_words: int, tokenizer: Any) -> Any:
    """The builders add <s> or <|endoftext|> to a vocabulary that lacks it: a number without a row in the embeddings."""
    from tokenizers import Tokenizer

    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules["added_tokens"] = [token for token in rules["added_tokens"] if token["id"] < num_words]
    return type(tokenizer)(tokenizer_object=Tokenizer.from_str(json.dumps(rules)), **tokenizer.init_kwargs)


# ---- the folder ----


def _save(model: Any, tokenizer: Any, header: Header, to: Path) -> None:
    """In bf16 where that loses nothing, else in fp32."""
    if all(torch.equal(weight, weight.bfloat16().float()) for weight in _weights(model)):
        model.to(torch.bfloat16)
    ends = [header.values.get(f"tokenizer.ggml.{end}_token_id") for end in ("eos", "eot", "eom")]
    unique = list(dict.fromkeys(end for end in ends if end is not None))
    if len(unique) > 1:  # a chat model ends its turn with a token of its own
        model.generation_config.eos_token_id = unique
    model.save_pretrained(str(to))
    tokenizer.save_pretrained(str(to))


@dataclass(frozen=True)
class Answers:
    """What a model makes of a few texts."""

    ids: list[list[int]]  # of each probe
    logits: Tensor  # [1, T, V], of the first


@torch.no_grad()
def _answers(model: Any, tokenizer: Any) -> Answers:
    ids = [tokenizer(probe)["input_ids"] for probe in PROBES]
    return Answers(ids, model(torch.tensor([ids[0][:16]])).logits)


def _check_folder(expected: Answers, folder: Path, name: str) -> None:
    """Loaded fresh, the folder gives the same ids and the same logits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **local)
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, use_safetensors=True, **local)
    found = _answers(model, tokenizer)
    if found.ids != expected.ids:
        raise ModelError(f"its words are numbered otherwise after they were saved; {SAFETENSORS}", where=name)
    drift = (found.logits - expected.logits).abs().max().item()
    if not drift <= TOLERANCE:
        raise ModelError(f"answers otherwise after it was saved (logits differ by {drift:.1g})", where=name)
