"""The model card: what the model is, how it was made, and what it is worth, from a run's folder alone.

Written as README.md beside a pushed model. Metadata follows the Hub's conventions; results are on our own held-out
rows, so they stand in `model-index`, never under a public benchmark's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tunewright.evaluation.record import Record, before_and_after, read_record
from tunewright.models import packaged

SHOWN_METRICS = ("accuracy", "macro_f1", "weighted_f1", "micro_f1", "mcc", "roc_auc", "ece", "loss", "rmse", "mae", "pearson", "spearman")


def model_card(run_folder: Path, repo_id: str | None = None) -> str:
    """README.md of the model: YAML metadata, then the page."""
    record = read_record(run_folder)
    name = repo_id or record.name
    parts = [
        f"# {name}",
        _opening(record),
        "## Results\n\n" + _results(record),
        "## Each epoch\n\n" + _epochs(record),
        _prompts(record),
        "## Use\n\n" + _quick_start(record, name),
        "## Data\n\n" + _data(record),
        f"## Recipe\n\n```yaml\n{record.recipe_text.strip()}\n```",
        _limits(record),
        "Made with [tunewright](https://pypi.org/project/tunewright/).",
    ]
    head = yaml.safe_dump(metadata(record, name), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def metadata(record: Record, name: str) -> dict[str, Any]:
    """The YAML block that the Hub reads."""
    model = record.run.get("model") or {}
    adapter = model.get("method") == "lora"
    base = model.get("hub_id")
    known = next((p for p in packaged.PACKAGED.values() if p.hub_id == base), None)
    facts: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["tunewright", *(["lora"] if adapter else []), "transformers"],
    }
    if base:
        facts |= {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"}
    if known:
        facts["license"] = known.license
    facts["metrics"] = [m for m in ("accuracy", "f1") if m in record.metrics or (m == "f1" and "macro_f1" in record.metrics)]
    facts["model-index"] = [{"name": name, "results": [_result(record)]}]
    return facts


def _result(record: Record) -> dict[str, Any]:
    kind = {"single": "text-classification", "multi": "text-classification", "number": "text-regression"}
    data = record.run.get("data") or {}
    return {
        "task": {"type": kind.get(data.get("kind", "single"), "text-classification")},
        "dataset": {"name": "held-out rows of the author's own data", "type": "private"},
        "metrics": [{"type": n, "value": round(v, 6)} for n, v in record.metrics.items() if n in SHOWN_METRICS],
    }


def _opening(record: Record) -> str:
    model, data = record.run.get("model") or {}, record.run.get("data") or {}
    labels = ", ".join(f"`{label}`" for label in data.get("labels") or []) or "a number"
    base = model.get("hub_id") or Path(str(model.get("name"))).name
    return (
        f"Reads a text and answers {labels}. Fine-tuned from `{base}` with method `{model.get('method')}`: "
        f"{model.get('trainable', 0):,} of {model.get('parameters', 0):,} parameters were trained "
        f"({model.get('trainable_fraction', 0):.2%})."
    )


def _results(record: Record) -> str:
    comparison = record.run.get("comparison") or {}
    before = comparison.get("before") or {}
    rows = [
        (
            name,
            f"{before[name]:.3f}" if name in before else "–",
            f"{record.metrics[name]:.3f}",
            "[{:.3f}, {:.3f}]".format(*record.intervals[name]) if name in record.intervals else "",
        )
        for name in SHOWN_METRICS
        if name in record.metrics
    ]
    count = (record.run.get("data") or {}).get("validation_rows")
    table = _table(("metric", "before", "after", "95 % interval"), rows)
    fixed = ""
    if comparison:
        fixed = (
            f"\n\nOn the same {count:,} rows the tuned model fixed {comparison['fixed']:,} answers of the untrained one "
            f"and broke {comparison['broke']:,} (p = {comparison['p_value']:.3g})."
        )
    return f"On {count:,} held-out rows:\n\n{table}{fixed}" if count else table


def _epochs(record: Record) -> str:
    rows = [r for r in record.rows if any(key.startswith("validation/") for key in r)]
    names = [n for n in ("train/loss", "validation/loss", _deciding(record)) if any(n in r for r in rows)]
    cells = [(f"{r['epoch']:g}", *(f"{r[n]:.3f}" if n in r else "–" for n in names)) for r in rows]
    return _table(("epoch", *names), cells)


def _deciding(record: Record) -> str:
    return (record.run.get("best") or {}).get("metric") or "validation/accuracy"


def _prompts(record: Record) -> str:
    rows = []
    for prompt, (before, after) in before_and_after(record.samples).items():
        shown = [", ".join(a.text + (f" {a.probability:.2f}" if a.probability is not None else "") for a in side) for side in (before, after)]
        rows.append((_cell(prompt), *(_cell(text) or "–" for text in shown)))
    return "## Before and after\n\n" + _table(("text", "before", "after"), rows) if rows else ""


def _quick_start(record: Record, name: str) -> str:
    """Code that runs as it stands, with nothing of ours."""
    model = record.run.get("model") or {}
    if model.get("method") != "lora":
        return f'```python\nfrom transformers import pipeline\n\nclassify = pipeline("text-classification", model="{name}")\nprint(classify("Some text"))\n```'
    return f"""```python
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

config = AutoConfig.from_pretrained("{name}")
base = AutoModelForSequenceClassification.from_pretrained("{model.get("hub_id") or model.get("path")}", config=config)
model = PeftModel.from_pretrained(base, "{name}").eval()
tokenizer = AutoTokenizer.from_pretrained("{name}")
inputs = tokenizer("Some text", truncation=True, return_tensors="pt")
inputs.pop("token_type_ids", None)
with torch.no_grad():
    print(config.id2label[int(model(**inputs).logits.argmax())])
```"""


def _data(record: Record) -> str:
    data: Mapping[str, Any] = record.run.get("data") or {}
    counts = ", ".join(f"{name} {count:,}" for name, count in (data.get("label_counts") or {}).items())
    return (
        f"{data.get('train_rows', 0):,} training rows and {data.get('validation_rows', 0):,} held-out rows"
        f"{f' ({counts})' if counts else ''}. Texts were cut to {data.get('max_length')} tokens on the "
        f"{data.get('truncate')}: {data.get('truncated_rows', 0):,} rows lost {data.get('truncated_tokens', 0):,} tokens."
    )


def _limits(record: Record) -> str:
    words = record.run.get("overfitting")
    lines = ["The figures hold for texts like those it was trained on; nothing is known about others."]
    return "## Limits\n\n" + "\n".join([*lines, *([words] if words else [])])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(text: str) -> str:
    """Text in a Markdown table: one line, no bars, no markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
