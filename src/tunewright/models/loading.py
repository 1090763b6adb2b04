"""From a name to a model: a packaged base, a folder, a Hub id, an earlier run; and back from what was saved.

First arrow of the model's side of the flow. safetensors only, never remote code. What is trained is chosen elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from tunewright.data.labels import LabelSpec
from tunewright.errors import ModelError, NetworkError
from tunewright.models import packaged

HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
    "classifier_dropout",
    "classifier_dropout_prob",
    "embedding_dropout",
    "mlp_dropout",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "pooler_dropout",
)


@dataclass(frozen=True)
class BaseModel:
    """Where a base model is, and what to call it."""

    name: str  # as given
    path: str  # folder on this machine
    kind: str  # packaged, folder, hub, run
    hub_id: str | None = None
    revision: str | None = None  # exact commit


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


# ---- finding ----


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
            f'"{hub_id}" is no folder here and the Hub can\'t be reached; check the connection, or give a folder or minilm',
            field="model",
        ) from None
    return BaseModel(hub_id, path, "hub", hub_id, commit or Path(path).name)


def _hub_error(hub_id: str, error: Any) -> NetworkError | ModelError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 404:
        return ModelError(f'the Hub has no model "{hub_id}"; check the name and the revision', field="model")
    if status in (401, 403):
        return NetworkError(f'the Hub refuses "{hub_id}" ({status}); it is private or gated: set HF_TOKEN', field="model")
    return NetworkError(f'the Hub answers {status} for "{hub_id}"; try again later', field="model")


# ---- a base model with a new head ----


def load_base(base: BaseModel, labels: LabelSpec, *, seed: int, dropout: float | None = None) -> Loaded:
    """The base model with a head for these labels; parameters it doesn't bring are drawn from `seed`.

    `dropout` replaces every dropout of the model; None leaves its own. An adapter folder is merged into its base first.
    """
    folder = Path(base.path)
    if (folder / "adapter_config.json").exists():
        saved = load_saved(folder)
        model, tokenizer, new = saved.model.merge_and_unload(), saved.tokenizer, frozenset()
        if saved.labels.names != labels.names or saved.labels.kind != labels.kind:
            model, new = _new_head(model, labels, seed)
        _set_dropout(model, dropout)
    else:
        config = _config(folder, labels, dropout)
        model, new = _load_model(folder, config, seed)
        tokenizer = _tokenizer(folder)
    added = tokenizer.pad_token_id is None
    said = _give_pad_token(model, tokenizer)
    return Loaded(model, tokenizer, labels, new, said, needs_pad_token=added)


def _new_head(model: Any, labels: LabelSpec, seed: int) -> tuple[Any, frozenset[str]]:
    """The same body under a fresh head, when a merged adapter was trained for other labels."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    _label_config(model.config, labels)
    fresh = AutoModelForSequenceClassification.from_config(model.config)
    body = f"{model.base_model_prefix}."
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(body)}
    fresh.load_state_dict(own, strict=False)
    return fresh, frozenset(name for name, _ in fresh.named_parameters() if not name.startswith(body))


def _config(folder: Path, labels: LabelSpec, dropout: float | None) -> Any:
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise ModelError("no config.json here; a model folder has config.json and model.safetensors", where=str(folder))
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ModelError(f"config.json can't be used ({_first_line(error)})", where=str(folder)) from None
    _label_config(config, labels)
    if dropout is not None:
        for name in DROPOUTS:
            if isinstance(getattr(config, name, None), (int, float)):
                setattr(config, name, dropout)
    return config


def _label_config(config: Any, labels: LabelSpec) -> None:
    config.num_labels = labels.num_outputs
    config.id2label = dict(labels.id2label)
    config.label2id = dict(labels.label2id)
    config.problem_type = labels.problem_type
    config.label_values = list(labels.raw)  # so that a saved model still knows 0 and 1 by their names


def _set_dropout(model: Any, dropout: float | None) -> None:
    for module in model.modules() if dropout is not None else ():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout


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
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{config.model_type} model can't be loaded ({_first_line(error)})", where=str(folder)) from None
    mismatched = {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    new = frozenset({*info["missing_keys"], *mismatched})
    body = [name for name, _ in model.named_parameters() if name.startswith(f"{model.base_model_prefix}.")]
    if body and new.issuperset(body):
        raise ModelError(f"none of the weights here belongs to a {config.model_type} model", where=str(folder))
    return model, new


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception for a bad file
        raise ModelError(f"tokenizer can't be loaded ({_first_line(error)})", where=str(folder)) from None
    if not tokenizer.is_fast:
        raise ModelError("only fast tokenizers (tokenizer.json) are supported", where=str(folder))
    return tokenizer


def _give_pad_token(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """A padded batch needs a pad token; where there is none an existing one serves, since masks come from lengths."""
    if tokenizer.pad_token_id is None:
        token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
        if token is None:
            raise ModelError("the tokenizer has no pad, eos, unk or bos token; add a pad_token to tokenizer_config.json")
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
    loaded = _saved_adapter(path, endpoint) if (path / "adapter_config.json").exists() else _saved_whole(path)
    loaded.model.to(device).eval()
    tokenizer = loaded.tokenizer
    longest = tokenizer.model_max_length if tokenizer.model_max_length < 1 << 20 else None
    return replace(loaded, max_length=longest, truncate=tokenizer.truncation_side)


def _saved_whole(path: Path) -> Loaded:
    config = _saved_config(path)
    model, new = _load_model(path, config, seed=0)
    if new:
        raise ModelError(
            f"no classifier: {sorted(new)[0]} isn't in the weights; give the folder of a trained classifier", where=str(path)
        )
    return Loaded(model, _tokenizer(path), LabelSpec.from_config(config))


def _saved_adapter(path: Path, endpoint: str | None) -> Loaded:
    from peft import PeftModel

    base = _adapter_base(path, endpoint)
    config = _saved_config(path if (path / "config.json").exists() else Path(base.path))
    labels = LabelSpec.from_config(config)
    loaded = load_base(base, labels, seed=0)
    loaded.model.config.pad_token_id = config.pad_token_id
    try:
        with quiet():
            model = PeftModel.from_pretrained(loaded.model, str(path))
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"adapter can't be loaded ({_first_line(error)})", where=str(path)) from None
    has_own = (path / "tokenizer.json").exists()
    return Loaded(model, _tokenizer(path) if has_own else loaded.tokenizer, labels)


def _adapter_base(path: Path, endpoint: str | None) -> BaseModel:
    """The base an adapter names: a folder, a packaged model by its Hub id, or a Hub model at its revision."""
    if not (path / "adapter_model.safetensors").is_file():
        raise ModelError("no adapter_model.safetensors beside adapter_config.json", where=str(path))
    try:
        config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        name = config["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError("adapter_config.json names no base model", where=str(path)) from None
    if not isinstance(name, str) or not name:
        raise ModelError("adapter_config.json names no base model", where=str(path))
    if Path(name).is_dir():
        return BaseModel(name, name, "folder")
    known = packaged.by_hub_id(name)
    if known:
        with contextlib.suppress(OSError):  # not installed: the Hub has it too
            return resolve_base(known)
    if name.startswith(("/", ".")):
        raise ModelError(f"its base model {name} is gone; put it back, or edit adapter_config.json", where=str(path))
    return from_hub(name, config.get("revision"), endpoint)


def _saved_config(path: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(path), local_files_only=True)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ModelError(f"config.json can't be used ({_first_line(error)})", where=str(path)) from None


# ---- quiet ----


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text[:200] if text else type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars and no chatter from libraries; what matters is said by us."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()

