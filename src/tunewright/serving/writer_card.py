"""What a model card says of a model that writes: the template of its prompts, code that runs, whose terms hold.

Beside `card`, which makes the page. Everything comes from the run's folder; no folder of this machine is named.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from tunewright.data.row_reading import TemplateReading
from tunewright.data.templates import Part
from tunewright.data.written import Format, kept_in
from tunewright.errors import ModelError
from tunewright.evaluation.record import Record, mapping, text, written_samples
from tunewright.models.gguf import GGUF_PACKAGES, GgufPackage
from tunewright.models.writers import WriterKind, kind_of

PIPELINES: dict[WriterKind, str] = {
    "causal": "text-generation",
    "encoder-decoder": "text2text-generation",
    "masked": "fill-mask",
}
AUTO: dict[WriterKind, str] = {
    "causal": "AutoModelForCausalLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
    "masked": "AutoModelForMaskedLM",
}
OPENINGS: dict[WriterKind, str] = {
    "causal": "Writes what comes after a prompt",
    "encoder-decoder": "Reads a text and writes another",
    "masked": "Fills the gaps in a text",
}
TERMS = {
    "gemma": "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "https://ai.google.dev/gemma/terms; they hold for this model too, and whoever passes it on passes them on."
}
NEW_TOKENS = 64


def writer_kind(record: Record) -> WriterKind:
    """What the saved model does; causal where its folder doesn't say."""
    try:
        return kind_of(record.folder / "model") or "causal"
    except ModelError:
        return "causal"


def gguf_package(record: Record) -> GgufPackage | None:
    """The packaged GGUF model that was the base."""
    return GGUF_PACKAGES.get(text(mapping(record.run.get("model")).get("name")))


def template_section(record: Record) -> str:
    """The template as a person writes it, or how messages become a prompt."""
    form = _format(record)
    if form is None:
        return ""
    if isinstance(form.reading, TemplateReading):
        shown = _fenced(form.reading.template.written())
        return f"The columns of a row in braces; the model writes the last one.\n\n{shown}"
    if form.talks:
        return "Messages with a role and a content, made into a prompt by the tokenizer's chat template."
    return "The text as it is."


def quick_start(record: Record, name: str, base: str, revision: str | None, is_adapter: bool) -> str:
    """Python that runs as it stands, with nothing of ours: `base` is the adapter's base model."""
    kind = writer_kind(record)
    auto, peft = AUTO[kind], "from peft import PeftModel\n" if is_adapter else ""
    at = f", revision={_quoted(revision)}" if revision else ""
    loaded = f"{auto}.from_pretrained({_quoted(base if is_adapter else name)}{at if is_adapter else ''})"
    lines = [
        f"import torch\n{peft}from transformers import {auto}, AutoTokenizer\n",
        f"name = {_quoted(name)}",
        f"model = {f'PeftModel.from_pretrained({loaded}, name)' if is_adapter else loaded}.eval()",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        *_use(record, kind),
    ]
    return "\n".join(lines)


def _use(record: Record, kind: WriterKind) -> list[str]:
    """From a prompt to what the model says."""
    if kind == "masked":
        return [
            'text = f"It was a {tokenizer.mask_token} day."',
            'inputs = tokenizer(text, return_token_type_ids=False, return_tensors="pt")',
            "with torch.no_grad():",
            "    logits = model(**inputs).logits",
            "gap = inputs.input_ids == tokenizer.mask_token_id",
            "print(tokenizer.decode(logits[gap].argmax(-1)))",
        ]
    form = _format(record)
    if form is not None and form.talks:
        given = [
            f'messages = [{{"role": "user", "content": {_quoted(_example(record))}}}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
        ]
    else:
        given = [
            *_prompt(record, form),
            'inputs = tokenizer(prompt, return_token_type_ids=False, return_tensors="pt")',
        ]
    begin = "" if kind == "encoder-decoder" else "[inputs.input_ids.shape[1] :]"
    return [
        *given,
        "with torch.no_grad():",
        f"    written = model.generate(**inputs, max_new_tokens={_new_tokens(record)}, do_sample=False)",
        f"print(tokenizer.decode(written[0]{begin}, skip_special_tokens=True).strip())",
    ]


def _prompt(record: Record, form: Format | None) -> list[str]:
    """The template filled by Python; spaces at its end belong to the answer."""
    if form is None or not isinstance(form.reading, TemplateReading):
        return [f"prompt = {_quoted(_example(record))}"]
    template = form.reading.template
    parts = template.shorter if template.optional else template.parts
    names = {part.text: _field(part.text) for part in parts if part.is_column}
    shown = replace(template, parts=tuple(Part(names.get(p.text, p.text), p.is_column) for p in parts), completion="_")
    before = shown.written().removesuffix("{_}" + template.ending).rstrip(" ")
    values = [f'    {field}="…",  # column {_quoted(column)}' for column, field in names.items()]
    return [f"prompt = {_quoted(before)}.format(", *values, ")"]


def _field(column: str) -> str:
    """A column's name as Python takes it."""
    name = re.sub(r"\W", "_", column)
    return name if name.isidentifier() else f"column_{name}"


def _example(record: Record) -> str:
    """A prompt that the run itself showed."""
    return next((sample.prompt for sample in written_samples(record.samples)), "Once upon a time")


def _new_tokens(record: Record) -> int:
    """As many as in the run's own evaluation."""
    found: Any = mapping(record.recipe.get("evaluation")).get("max_new_tokens")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else NEW_TOKENS


def _format(record: Record) -> Format | None:
    try:
        return kept_in(record.folder / "model")[0]
    except ModelError:
        return None


def _quoted(words: str) -> str:
    """A Python string in double quotes."""
    return json.dumps(words, ensure_ascii=False)


def _fenced(body: str) -> str:
    """A block of plain text that nothing inside it can close."""
    longest = max((len(ticks) for ticks in re.findall(r"`{3,}", body)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{body}\n{fence}"
