"""What `tunewright init` writes: a recipe with a comment per line, and a few labelled texts to try it on."""

from __future__ import annotations

import json
import os
from pathlib import Path

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


def recipe_for(data: str, folder: Path) -> str:
    """A recipe for a person's own data, with the columns that were found in it. Raises DataError."""
    from tunewright.data.columns import find_columns
    from tunewright.data.sources import open_data

    splits = open_data(data)
    columns = find_columns(splits.train)
    return _TEMPLATE.format(
        train=json.dumps(_seen_from(folder, data), ensure_ascii=False),
        validation="auto" if splits.validation else "0.1",
        text=json.dumps(columns.text, ensure_ascii=False),
        label=json.dumps(columns.label, ensure_ascii=False),
        prompts="[]                # texts to answer before and after",
    )


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
