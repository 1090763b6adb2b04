"""Text learnt beside a reward, so that a model forgets less of what it was: the `ptx` of InstructGPT (PPO-ptx).

Packaged general text, plain text, or prompts with completions, read as the tasks continue and generate read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunewright.data.sources import open_data
from tunewright.data.windows import windows
from tunewright.data.written import Format, as_it_is, recognise
from tunewright.data.written_tokens import RowEncoder, WrittenDataset, tokenize_written
from tunewright.evaluation import forgetting
from tunewright.learning.gradients import Objective, Training
from tunewright.learning.language_modeling import LanguageModeling
from tunewright.models.finding import cache_folder
from tunewright.recipe import Recipe

GENERAL = "general"


def pretraining_rows(recipe: Recipe, tokenizer: Any, say: Callable[[str], None]) -> tuple[Objective, Training]:
    """What `align.ptx` names, with its objective. Raises DataError, RecipeError."""
    named = recipe.align.ptx
    assert named is not None and isinstance(recipe.data.max_length, int)
    given: Any = [{"text": text} for text in forgetting.documents(GENERAL)] if named == GENERAL else named
    source = open_data(given).train
    form: Format = as_it_is() if named == GENERAL else recognise(source)
    whole = form.name == "plain text"
    encoder = RowEncoder.of(form, tokenizer, None if whole else recipe.data.max_length, recipe.data.truncate)
    rows = tokenize_written(source, encoder, cache_folder() / "tokens")
    if whole:
        cut = windows(rows, recipe.data.max_length, *encoder.encoder.lead[:1])
        assert isinstance(cut, WrittenDataset)
        rows = cut
    say(f"learnt beside: {len(rows):,} texts of {named}, {rows.num_targets:,} tokens")
    return LanguageModeling(), Training(rows, rows.lengths)
