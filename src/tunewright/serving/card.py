"""The model card: what the model is, how it was made, and what it is worth, from a run's folder alone.

Written as README.md beside a pushed model. Metadata follows the Hub's conventions; results are on our own held-out
rows, so they stand in `model-index`, never under a public benchmark's name. No folder of this machine is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tunewright.data.hub_datasets import is_hub_id
from tunewright.data.reading import is_data_file
from tunewright.evaluation import wording
from tunewright.evaluation.record import (
    Answer,
    Record,
    before_and_after,
    mapping,
    number,
    numbers,
    read_record,
    text,
    written_samples,
)
from tunewright.models import packaged
from tunewright.serving import writer_card

# What the Hub calls our metrics, where it has a word.
HUB_METRICS = {
    "macro_f1": "f1",
    "weighted_f1": "f1",
    "micro_f1": "f1",
    "mcc": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "rouge_1": "rouge",
    "rouge_2": "rouge",
    "rouge_l": "rouge",
}
EXAMPLE = "It was good."
LONGEST = 300  # characters of a text in a table


def model_card(run_folder: Path, repo_id: str | None = None) -> str:
    """README.md of the model: YAML metadata, then the page. `repo_id`: the name that its code loads."""
    record = read_record(run_folder)
    name = repo_id or record.name
    sections = {
        "Results": _results(record),
        "Each epoch": _epochs(record),
        "Before and after": _prompts(record),
        "Prompt template": writer_card.template_section(record) if record.writes else "",
        "Use": _fenced("python", quick_start(record, name)),
        "Data": _data(record),
        "Recipe": _fenced("yaml", public_recipe(record)),
        "Made with": _environment(record),
        "Limits": _limits(record),
        "Terms": writer_card.TERMS.get(text(_license(record)), ""),
    }
    head = yaml.safe_dump(metadata(record, name), sort_keys=False, allow_unicode=True)
    page = [
        f"# {_plain(name)}",
        _opening(record),
        *(f"## {title}\n\n{body}" for title, body in sections.items() if body),
    ]
    return f"---\n{head}---\n\n" + "\n\n".join(page) + "\n"


def public_recipe(record: Record) -> str:
    """The resolved recipe with its origins, folders of this machine cut to the name of what lies in them."""
    wanted, data = dict(record.recipe), mapping(record.recipe.get("data"))
    kept, found = {_model(record).get("hub_id"), *_hub_data(record)}, record.recipe_text.strip()
    for holder, field in ((wanted, "model"), (data, "train"), (data, "validation")):
        value = holder.get(field)
        if isinstance(value, str) and value not in kept:
            holder[field] = _last_part(value)
            found = found.replace(value, holder[field])
    wanted |= {"data": data} if data else {}
    # A path that YAML quotes, or that a prompt repeats, can't be cut in the text: then the origins go.
    return found if _parsed(found) == wanted else yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True).strip()


def _parsed(recipe: str) -> object:
    try:
        return yaml.safe_load(recipe)
    except yaml.YAMLError:
        return None


# ---- the YAML block that the Hub reads ----


def metadata(record: Record, name: str) -> dict[str, Any]:
    """Keys of the Hub's model card metadata."""
    relation, base = "adapter" if _is_adapter(record) else "finetune", _base_id(record)
    types = dict.fromkeys(HUB_METRICS.get(metric, metric) for metric, _ in _shown(record))
    facts = {
        "base_model": base,
        "base_model_relation": relation if base else None,
        "library_name": "peft" if relation == "adapter" else "transformers",
        "pipeline_tag": _pipeline(record),
        "license": _license(record),
        "datasets": list(dict.fromkeys(name.partition(":")[0] for name in _hub_data(record))),
        "metrics": [metric for metric in types if metric not in ("loss", "ece")],
        "tags": _tags(relation, base),
        "model-index": [{"name": name, "results": [_result(record)]}] if record.metrics else None,
    }
    return {key: value for key, value in facts.items() if value}


def _pipeline(record: Record) -> str:
    return writer_card.PIPELINES[writer_card.writer_kind(record)] if record.writes else "text-classification"


def _base_id(record: Record) -> str:
    """The base's Hub id; of a packaged GGUF file, where the file comes from."""
    package = writer_card.gguf_package(record)
    return package.hub_id if package else text(_model(record).get("hub_id"))


def _license(record: Record) -> str | None:
    """Of a packaged base; another one's is its author's to name."""
    package = writer_card.gguf_package(record)
    known = packaged.by_hub_id(_base_id(record))
    return package.license if package else packaged.PACKAGED[known].license if known else None


def _tags(relation: str, base: str) -> list[str]:
    return [
        "tunewright",
        "transformers",
        *(["lora"] if relation == "adapter" else []),
        *([f"base_model:{relation}:{base}"] if base else []),
    ]


def _result(record: Record) -> dict[str, Any]:
    return {
        "task": {"type": _pipeline(record)},
        "dataset": {"name": "held-out rows of the author's own data", "type": "private", "split": "validation"},
        "metrics": [
            {"type": HUB_METRICS.get(metric, metric), "name": wording.metric_name(metric), "value": round(value, 6)}
            for metric, value in _shown(record)
        ],
    }


# ---- the page ----


def _opening(record: Record) -> str:
    model, labels = _model(record), ", ".join(_plain(label) for label in record.labels)
    base = _base_id(record) or _last_part(text(model.get("name")))
    does = f"Reads a text and answers {f'one of: {labels}' if record.kind == 'single' else labels or 'a number'}"
    if record.writes:
        does = writer_card.OPENINGS[writer_card.writer_kind(record)]
    return (
        f"{does}. "
        f"Fine-tuned from {_plain(base)} with method {_plain(text(model.get('method')))}: "
        f"{wording.count(model.get('trainable'))} of {wording.count(model.get('parameters'))} parameters were trained "
        f"({wording.percent(model.get('trainable_fraction'))})."
    )


def _results(record: Record) -> str:
    baseline = numbers(record.run.get("baseline"))
    rows = [
        (
            wording.metric_name(name),
            wording.decimals(baseline.get(name)),
            wording.decimals(record.untrained.get(name)),
            wording.decimals(value),
            wording.between(record.intervals.get(name)),
            wording.metric_meaning(name, record.kind),
        )
        for name, value in _shown(record)
    ]
    header = ("metric", "without reading", "before", "after", "95 % interval", "meaning")
    return f"{wording.verdict(record).sentence}\n\n{_table(header, rows)}" if rows else ""


def _epochs(record: Record) -> str:
    deciding = f"validation/{wording.deciding_metric(record)}"
    names = [n for n in dict.fromkeys(("train/loss", "validation/loss", deciding)) if _has(record.evaluations, n)]
    best = mapping(record.run.get("best")).get("step")
    rows = [
        (_epoch(row) + (" (kept)" if row.get("step") == best else ""), *(wording.decimals(row.get(n)) for n in names))
        for row in record.evaluations
    ]
    return _table(("epoch", *names), rows) if rows else ""


def _epoch(row: dict[str, Any]) -> str:
    epoch = number(row.get("epoch"))
    return wording.NOTHING if epoch is None else f"{epoch:.3g}"


def _has(rows: Iterable[dict[str, Any]], name: str) -> bool:
    return any(name in row for row in rows)


def _prompts(record: Record) -> str:
    if record.writes:
        return _written(record)
    found = before_and_after(record.samples)
    rows = [(_plain(prompt), _said(before), _said(after)) for prompt, (before, after) in found.items()]
    return _table(("text", "before", "after"), rows) if rows else ""


def _written(record: Record) -> str:
    """Prompts with what was written for them, each cut to a line that a table can hold."""
    samples = written_samples(record.samples)
    rows = [[_shown_text(words) for words in (one.prompt, one.before, one.after)] for one in samples]
    return _table(("prompt", "before", "after"), rows) if rows else ""


def _shown_text(words: str | None) -> str:
    if words is None:
        return wording.NOTHING
    plain = " ".join(words.split())
    return _plain(plain if len(plain) <= LONGEST else plain[: LONGEST - 2].rstrip() + " …")


def _said(answers: Sequence[Answer]) -> str:
    shown = [_plain(a.text) + (f" {a.probability:.2f}" if a.probability is not None else "") for a in answers]
    return ", ".join(shown) or wording.NOTHING


def quick_start(record: Record, name: str) -> str:
    """Python that runs as it stands, with nothing of ours."""
    model = _model(record)
    base = text(model.get("hub_id")) or f"path/to/{_last_part(text(model.get('name')))}"
    if record.writes:
        at = text(model.get("revision")) or None
        return writer_card.quick_start(record, name, base, at, _is_adapter(record))
    if not _is_adapter(record):
        every = ", top_k=None" if record.kind == "multi" else ""
        return (
            f"from transformers import pipeline\n\n"
            f'classify = pipeline("text-classification", model={_quoted(name)})\n'
            f"print(classify({_quoted(EXAMPLE)}, truncation=True{every}))"
        )
    revision = f", revision={_quoted(text(model.get('revision')))}" if model.get("revision") else ""
    answer = {
        "single": "config.id2label[int(logits.argmax())], float(logits.softmax(-1).max())",
        "multi": "[config.id2label[i] for i, p in enumerate(logits.sigmoid().tolist()) if p >= 0.5]",
        "number": "float(logits[0])",
    }[record.kind]
    return f"""import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

name = {_quoted(name)}
config = AutoConfig.from_pretrained(name)
base = AutoModelForSequenceClassification.from_pretrained({_quoted(base)}{revision}, config=config)
model = PeftModel.from_pretrained(base, name).eval()
tokenizer = AutoTokenizer.from_pretrained(name)
inputs = tokenizer({_quoted(EXAMPLE)}, truncation=True, return_token_type_ids=False, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits[0]
print({answer})"""


def _data(record: Record) -> str:
    data = mapping(record.run.get("data"))
    said = {
        name: wording.count(data.get(name))
        for split in ("train", "validation", "truncated")
        for name in (f"{split}_rows", f"{split}_tokens")
    }
    counts = ", ".join(f"{_plain(name)} {wording.count(n)}" for name, n in numbers(data.get("label_counts")).items())
    return (
        f"{said['train_rows']} training rows{f' ({counts})' if counts else ''} and {said['validation_rows']} held-out "
        f"rows; {said['train_tokens']} and {said['validation_tokens']} tokens. A text is cut to "
        f"{wording.count(data.get('max_length'))} tokens on the {_plain(text(data.get('truncate')))}: "
        f"{said['truncated_rows']} rows lost {said['truncated_tokens']} tokens."
    )


def _environment(record: Record) -> str:
    versions = mapping(record.environment.get("versions"))
    return ", ".join(f"{_plain(name)} {_plain(str(version))}" for name, version in versions.items())


def _limits(record: Record) -> str:
    chosen = " The epoch that was kept is the best on these same rows, so they flatter it a little."
    kept = mapping(record.recipe.get("evaluation")).get("keep") == "best"
    lines = [
        "The figures hold for texts like those of its data; on other texts nothing was measured."
        + (chosen if kept else ""),
        "It writes something for every prompt, also where it knows nothing; what it writes can be wrong."
        if record.writes
        else "It answers for every text, also where no answer fits; its probabilities are estimates.",
        _plain(text(record.forgetting.get("words"))),
        _plain(text(record.run.get("overfitting"))),
    ]
    return "\n".join(f"- {line}" for line in lines if line)


# ---- small things ----


def _model(record: Record) -> dict[str, Any]:
    return mapping(record.run.get("model"))


def _is_adapter(record: Record) -> bool:
    return _model(record).get("method") == "lora"


def _hub_data(record: Record) -> list[str]:
    """Hub ids among the data: only for those is a revision recorded."""
    data = mapping(record.recipe.get("data")) if mapping(record.run.get("data")).get("revision") else {}
    names = (text(data.get("train")), text(data.get("validation")))
    return [name for name in names if is_hub_id(name) and not is_data_file(name)]


def _shown(record: Record) -> list[tuple[str, float]]:
    return [(name, record.metrics[name]) for name in wording.METRIC_WORDS if name in record.metrics]


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _quoted(words: str) -> str:
    """A Python string in double quotes."""
    return '"' + repr(words)[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _plain(words: str) -> str:
    """A person's words in Markdown: one line, no markup of their own."""
    return re.sub(r"([\\`*\[\]|<>~#!]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(words.split()))


def _fenced(language: str, body: str) -> str:
    """A code block that nothing inside it can close."""
    longest = max((len(ticks) for ticks in re.findall(r"`{3,}", body)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{body}\n{fence}" if body else ""
