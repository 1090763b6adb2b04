"""What `tunewright init` writes: a recipe with a comment per line, and a few labelled texts to try it on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewright.data.examples import Source

SAMPLE_NAME = "reviews.jsonl"

_TEMPLATE = """# yaml-language-server: $schema=.tunewright/schema.json
task: classify               # a label, several labels, or a number for each text
model: minilm                # packaged; or a folder, a Hub id, run:NAME
data:
  train: {train}
  validation: {validation}            # a fraction of train to hold out, or a file
  text: {text}                 # the column that is read
  label: {label}               # the column that is learned
trainable:
  method: lora               # lora | head | full
training:
  epochs: auto               # every setting: tunewright schema --field training
evaluation:
  prompts: {prompts}
"""

SAMPLE_RECIPE = _TEMPLATE.format(
    train=SAMPLE_NAME,
    validation="0.25",
    text="text",
    label="label",
    prompts='["It was good.", "This one is a pass."]   # answered before and after',
)


_WRITING = """# yaml-language-server: $schema=.tunewright/schema.json
task: {task}
model: gemma3-270m           # packaged; or a folder, a .gguf file, a Hub id, run:NAME
data:
  train: {train}
  validation: {validation}            # a fraction of train to hold out, or a file
{format}
trainable:
  method: lora               # lora | head | full
training:
  epochs: auto               # every setting: tunewright schema --field training
evaluation:
  prompts: []                # texts to answer before and after; none: the first validation rows
"""


def recipe_for(data: str, folder: Path) -> str:
    """A recipe for a person's own data, with the task and columns that were found in it. Raises DataError."""
    from tunewright.data.columns import find_columns
    from tunewright.data.purpose import purpose_of
    from tunewright.data.sources import open_data

    splits = open_data(data)
    train = json.dumps(_seen_from(folder, data), ensure_ascii=False)
    validation = "auto" if splits.validation else "0.1"
    if (task := purpose_of(splits.train).task) != "classify":
        return _writing_recipe(task, splits.train, train, validation)
    columns = find_columns(splits.train)
    return _TEMPLATE.format(
        train=train,
        validation=validation,
        text=json.dumps(columns.text, ensure_ascii=False),
        label=json.dumps(columns.label, ensure_ascii=False),
        prompts="[]                # texts to answer before and after",
    )


def _writing_recipe(task: str, source: Source, train: str, validation: str) -> str:
    from tunewright.data.written import recognise

    form = recognise(source)
    lines = [f"  # {' '.join(sentence.split())}" for sentence in form.said]
    if task == "continue":
        lines.append(f"  text: {json.dumps(form.reading.columns[0], ensure_ascii=False)}")
    elif not form.talks:
        lines.append('  # template: "Q: {question} A: {answer}"   # your own, over the columns, instead')
    purpose = {"generate": "write a completion for each prompt", "continue": "go on with plain text"}[task]
    return _WRITING.format(task=f"{task:<22} # {purpose}", train=train, validation=validation, format="\n".join(lines))


def _seen_from(folder: Path, data: str) -> str:
    """A path relative to the recipe's folder; a Hub id as it is."""
    path = Path(data)
    return os.path.relpath(path, folder).replace(os.sep, "/") if path.exists() else data


_POSITIVE = (
    "A warm and funny film with a cast that clearly enjoys itself.",
    "I smiled from the first scene to the last.",
    "The story is simple, and it is told beautifully.",
    "Two hours went by like ten minutes.",
    "She gives the best performance of the year.",
    "Gorgeous pictures, a clever script, and a perfect ending.",
    "I would gladly see it again tomorrow.",
    "A small film with a big heart.",
    "The music alone is worth the ticket.",
    "Sharp, moving and never boring.",
    "My whole family loved it.",
    "It surprised me again and again.",
)
_NEGATIVE = (
    "The plot makes no sense, and nobody seems to care.",
    "I checked my watch five times in the first half hour.",
    "Loud, long and completely empty.",
    "The jokes fall flat, one after the other.",
    "A waste of a good cast.",
    "It looks cheap and sounds worse.",
    "I wanted my money back.",
    "The worst sequel I have ever sat through.",
    "Nothing happens, and it takes forever.",
    "The acting is wooden and the dialogue is painful.",
    "I fell asleep, and I don't regret it.",
    "A dull copy of much better films.",
)


def sample_rows() -> str:
    """Labelled texts as JSON Lines, the two labels in turn."""
    pairs = zip(_POSITIVE, _NEGATIVE, strict=True)
    rows = [row for good, bad in pairs for row in ((good, "positive"), (bad, "negative"))]
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
