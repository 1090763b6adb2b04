"""Task align by comparisons (DPO): what people preferred teaches the model that writes, without a reward model between.

Reads and splits comparisons as task reward does, prompts as the base was tuned to read them. What the reference thinks
of every completion is measured once, before the first step, and kept in the run folder; a resumed run reads it there.
PPO and GRPO, which learn from a reward, are `align`.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tunewright.data.comparison_reading import COMPLETION, PROMPT
from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.data.comparisons import recognised
from tunewright.data.examples import Row, Splits
from tunewright.data.preparing import Tokenized
from tunewright.data.prompts import prompt_text, tokenize_prompts
from tunewright.data.row_reading import TemplateReading
from tunewright.data.scored_rows import WrittenRows
from tunewright.data.splitting import first_of_each
from tunewright.data.templates import Template
from tunewright.data.tokenizing import TokenizedDataset
from tunewright.data.written import PROMPT_FORMAT, Format, kept_in
from tunewright.data.written_tokens import RowEncoder
from tunewright.defaults import Facts
from tunewright.errors import ModelError, StoppedError
from tunewright.evaluation import alignment, direct_preferences
from tunewright.learning.direct_preference import DirectPreference, completion_logprobs
from tunewright.learning.loop import FitState
from tunewright.learning.rollouts import Asked, Ending
from tunewright.models.context import context_length
from tunewright.models.finding import BaseModel, resolve_base
from tunewright.models.opened import Loaded
from tunewright.models.starting import load_policy
from tunewright.models.writers import new_modules
from tunewright.progress import Phase
from tunewright.recipe import Recipe
from tunewright.tasks.align import Prompts
from tunewright.tasks.align_dpo_scoring import DirectPreferenceScorer
from tunewright.tasks.align_scoring import HeldOut
from tunewright.tasks.reward import ComparedParts, cut_words, describe
from tunewright.tasks.rewards import MixedReward, build_reward
from tunewright.tasks.task import Lesson, ScoringParts, learn_by_fitting

SAMPLED = 500  # prompts whose lengths decide
REFERENCE = "predictions/reference.safetensors"


@dataclass(frozen=True)
class AlignDpo:
    """Comparisons to learn from."""

    recipe: Recipe
    runs: Path
    splits: Splits
    parts: ComparedParts
    tuned: Format | None  # how the base was tuned to read prompts, where it says so
    said: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Recipe, splits: Splits, runs: Path) -> AlignDpo:
        """Read, and hold out prompts. Raises DataError naming file, row and column, RecipeError, ModelError."""
        source = resolve_base(recipe.model, recipe.revision, runs)
        tuned, _ = kept_in(Path(source.path))
        form, said = None, ()
        if tuned is not None and recipe.data.template is None and not recognised(splits.train)[0].talks:
            form, said = as_tuned(tuned, next(iter(splits.train.rows())))
        parts = ComparedParts.of(recipe, splits, form)
        return cls(recipe, runs, splits, parts, tuned, (*parts.said, *said))

    @property
    def train_rows(self) -> np.ndarray:
        return self.parts.train_rows

    @property
    def fingerprint(self) -> str:
        return self.parts.fingerprint

    @property
    def format(self) -> Format:
        """How a prompt with a completion is read."""
        return self.parts.train.format

    @cached_property
    def judge(self) -> MixedReward | None:
        """What judges the answers and is never learnt from."""
        wanted = self.recipe.evaluation.judge
        device = self.recipe.training.device
        return build_reward([wanted], self.runs, device, field="evaluation.judge") if wanted else None

    def load(self, source: BaseModel, recipe: Recipe, dropout: float | None) -> Loaded:
        """The policy as it starts; without dropout, unless asked for, since the reference has none either."""
        if self.judge is not None:
            self.judge.check([asked for _, asked in self._held_out_prompts(1)])
        calm = 0.0 if recipe.training.base_dropout == "auto" else dropout
        beside = recipe.trainable.method == "lora"
        loaded = load_policy(source, seed=recipe.training.seed, dropout=calm, beside=beside)
        if loaded.kind != "causal":
            named = loaded.model.config.model_type
            says = f"a {named} model doesn't write from left to right; task align needs one that does, such as "
            raise ModelError(f"{says}gemma3-270m", field="model")
        chat = RowEncoder.of(self.format, loaded.tokenizer).chat
        return replace(loaded, said=(*loaded.said, *(chat.said if chat else ())))

    def head(self, loaded: Loaded) -> tuple[str, ...]:
        return new_modules(loaded.model, loaded.new_parameters)

    def facts(self, recipe: Recipe, loaded: Loaded) -> Facts:
        encoder = WrittenRows(RowEncoder.of(self.format, loaded.tokenizer))
        groups = itertools.islice(self.parts.train.groups(), SAMPLED)
        encoded = encoder.encode([row for group in groups for row in group.rows])
        return Facts(
            num_examples=len(self.parts.train_rows),
            token_lengths=np.array([len(tokens.ids) for tokens in encoded]),
            context_length=context_length(loaded.model.config),
            num_parameters=sum(p.numel() for p in loaded.model.parameters()),
            kind="preference",
            default_metric="loss",
            completion_lengths=np.array([sum(tokens.is_target) for tokens in encoded]),
        )

    def tokenize(self, recipe: Recipe, loaded: Loaded, cache: Path) -> Tokenized:
        return self.parts.tokenize(WrittenRows(self._encoder(recipe, loaded.tokenizer)), cache)

    def _encoder(self, recipe: Recipe, tokenizer: Any) -> RowEncoder:
        assert isinstance(recipe.data.max_length, int)
        return RowEncoder.of(self.format, tokenizer, recipe.data.max_length, recipe.data.truncate)

    def cut_words(self, recipe: Recipe, part: TokenizedDataset) -> str | None:
        return cut_words(recipe, part)

    def objective(self, recipe: Recipe, tokens: Tokenized, loaded: Loaded) -> DirectPreference:
        """Before the reference is measured: what a step costs, and where the first one goes."""
        assert isinstance(tokens.train, ComparisonDataset)
        return DirectPreference(tokens.train, recipe.align.beta)

    # ---- judging ----

    def scorer(self, parts: ScoringParts) -> DirectPreferenceScorer:
        evaluation, encoder = parts.recipe.evaluation, self._encoder(parts.recipe, parts.tokenizer)
        assert isinstance(evaluation.generate_rows, int)
        held_out = self._held_out_prompts(max(evaluation.generate_rows, 1))
        own = [self.format.row(text, "evaluation.prompts", n) for n, text in enumerate(evaluation.prompts)]
        shown = [(row, Asked(prompt_text(self.format, row), row.values)) for row in own]
        return DirectPreferenceScorer(
            self.parts.validation,
            self.parts.validation_rows,
            HeldOut(
                prompts=_prompts(held_out, encoder, parts),
                where=[row.where for row, _ in held_out],
                ending=Ending(encoder.encoder.ends, encoder.text, encoder.stop, parts.tokenizer),
                shown=_prompts(shown, encoder, parts) if shown else None,
            ),
            self.judge,
            parts,
        )

    def _held_out_prompts(self, count: int) -> list[tuple[Row, Asked]]:
        """The first different prompts of the validation part, without their completions."""
        compared, rows = self.parts.validation, self.parts.validation_rows
        wanted = set(map(int, rows[first_of_each(compared.prompt_hashes[rows])][:count]))
        chosen = (group.rows[0] for number, group in enumerate(compared.groups()) if number in wanted)
        asked = [
            replace(row, values={name: value for name, value in row.values.items() if name != COMPLETION})
            for row in itertools.islice(chosen, len(wanted))
        ]
        return [(row, Asked(prompt_text(self.format, row), row.values)) for row in asked]

    # ---- learning ----

    def learn(self, lesson: Lesson) -> FitState:
        """Measure the reference, or read what an earlier process measured; then the loop."""
        objective, scorer = lesson.objective, lesson.scorer
        assert isinstance(objective, DirectPreference) and isinstance(scorer, DirectPreferenceScorer)
        known = _kept_reference(lesson) if lesson.resume is not None else None
        if known is None:
            known = _measured_reference(lesson)
        train, scorer.ref_logprobs = known
        return learn_by_fitting(replace(lesson, objective=replace(objective, ref_logprobs=train)))

    # ---- words ----

    def higher_is_better(self, metric: str) -> bool:
        return HIGHER_IS_BETTER[metric]

    def describe(self) -> dict[str, Any]:
        return {**describe(self.parts), "kind": "align"}

    def header(self, recipe: Recipe) -> tuple[str, str]:
        read = f"{self.format.name}, prompts cut on the {recipe.data.truncate} at {recipe.data.max_length} tokens"
        return "align", f"dpo · beta {recipe.align.beta:g} · {read} with a completion"

    def put_beside(self, folder: Path, recipe: Recipe) -> None:
        """How a prompt is made when the model is used: as the base was tuned, or as the comparisons have it."""
        as_before = self.tuned is not None and recipe.data.template is None and self.tuned.talks == self.format.talks
        form = self.tuned if as_before and self.tuned is not None else self.format
        body = form.to_json() | {"max_new_tokens": recipe.evaluation.max_new_tokens}
        (folder / PROMPT_FORMAT).write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


HIGHER_IS_BETTER = alignment.HIGHER_IS_BETTER | direct_preferences.HIGHER_IS_BETTER


def _prompts(asked: list[tuple[Row, Asked]], encoder: RowEncoder, parts: ScoringParts) -> Prompts:
    new = parts.recipe.evaluation.max_new_tokens
    assert isinstance(new, int)
    dataset = tokenize_prompts([row for row, _ in asked], encoder, new, context_length(parts.forward.config))
    return Prompts(dataset, tuple(one for _, one in asked))


# ---- what the reference thinks ----


def _measured_reference(lesson: Lesson) -> tuple[np.ndarray, np.ndarray]:
    """log p of every completion of train and validation under the starting model, kept in the run folder."""
    lesson.recorder.tell(Phase("measuring the reference"))
    scorer = lesson.scorer
    assert isinstance(scorer, DirectPreferenceScorer)
    parts = ((scorer.train, lesson.cache), (scorer.validation, scorer.parts.cache))

    def stop_if_asked() -> None:
        # Of several ranks one may hear a signal before the others: then the loop's own exchange decides.
        number = lesson.hooks.stop_signal() if lesson.runtime.world_size == 1 else 0
        if number:
            raise StoppedError("stopped before the first step; continue with --resume", signal_number=number)

    # Nothing has been learnt and no checkpoint read yet, whatever learns: the policy still is the reference.
    train, validation = (
        completion_logprobs(lesson.forward, part, cache=cache, runtime=lesson.runtime, before_batch=stop_if_asked)
        for part, cache in parts
    )
    lesson.recorder.write_tensors(
        REFERENCE, {"train": torch.from_numpy(train), "validation": torch.from_numpy(validation)}
    )
    lesson.runtime.barrier()
    return train, validation


def _kept_reference(lesson: Lesson) -> tuple[np.ndarray, np.ndarray] | None:
    """What an earlier process of this run kept; None where it is gone or no longer fits."""
    try:
        kept = {name: tensor.numpy() for name, tensor in load_file(lesson.recorder.folder / REFERENCE).items()}
    except (OSError, SafetensorError):
        kept = {}
    wanted = {"train": _compared(lesson.tokens.train), "validation": _compared(lesson.tokens.validation)}
    if {name: values.shape for name, values in kept.items()} != {
        n: (part.num_texts.sum(),) for n, part in wanted.items()
    }:
        lesson.recorder.say("what the reference thinks isn't in the run folder: it is measured again", "warning")
        return None
    return kept["train"], kept["validation"]


def _compared(part: TokenizedDataset) -> ComparisonDataset:
    assert isinstance(part, ComparisonDataset)
    return part


# ---- how prompts are read ----


def as_tuned(tuned: Format, first: Row) -> tuple[Format | None, tuple[str, ...]]:
    """The format of the base's prompts for these rows, and what there is to say; None: they stand as they are.

    `rank sample` stores prompts as the model saw them; those must not be framed twice.
    """
    reading = tuned.reading
    if not isinstance(reading, TemplateReading):
        return None, ()
    template, shown = reading.template, json.dumps(reading.template.written(), ensure_ascii=False)
    if any(part.text.strip() and not part.is_column for part in template.parts) and _is_framed(template, first):
        return None, (f"the prompts stand as the base was tuned to read them: {shown}",)
    missing = [name for name in template.columns if name not in first.values]
    if missing and any(not part.is_column for part in template.parts):
        says = f"the base was tuned with {shown}, and these prompts hold no {missing[0]} and are not made so: they are "
        return None, (f"{says}taken as they stand; data.template can say how one is made",)
    if missing:
        return None, ()
    own = replace(reading, template=replace(template, completion=COMPLETION), answers=COMPLETION, several=False)
    return replace(tuned, reading=own, learn="completion", said=(f"prompts as the base was tuned: {shown}",)), ()


def _is_framed(template: Template, first: Row) -> bool:
    """Whether a prompt already holds the template's own words, in their order."""
    rest = str(first.values.get(PROMPT, ""))
    for words in (part.text.strip() for part in template.parts if not part.is_column):
        _, found, rest = rest.partition(words) if words else ("", True, rest)
        if not found:
            return False
    return True
