"""Task align by a reward (PPO, GRPO): prompts in; completions are sampled, scored and learnt from, over and over.

Prompts are read as the base was tuned to read them. What scores (`rewards`) and who judges (`align_scoring`) is loaded
with the base, so that a wrong name is said before anything is computed; the loop is `learning.ppo_loop`. DPO, which
learns from comparisons, is `align_dpo`.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tunewright.data.examples import Source, Splits
from tunewright.data.preparing import HELD_OUT, Tokenized
from tunewright.data.prompts import PromptDataset, prompt_format, prompt_text, tokenize_prompts
from tunewright.data.splitting import first_of_each, leaks, split
from tunewright.data.survey import text_hash
from tunewright.data.tokenizing import TokenizedDataset
from tunewright.data.written import PROMPT_FORMAT, Format, kept_in
from tunewright.data.written_tokens import RowEncoder
from tunewright.defaults import Facts
from tunewright.errors import ModelError
from tunewright.evaluation.alignment import HIGHER_IS_BETTER
from tunewright.learning.language_modeling import LanguageModeling
from tunewright.learning.loop import FitState
from tunewright.learning.ppo_loop import ppo
from tunewright.learning.ppo_plan import PpoPlan
from tunewright.learning.rollouts import Asked, Ending
from tunewright.models.context import context_length
from tunewright.models.finding import BaseModel, resolve_base
from tunewright.models.forward import Forward
from tunewright.models.opened import Loaded
from tunewright.models.starting import Reference, load_policy
from tunewright.models.value_head import ValueHead
from tunewright.models.writers import new_modules
from tunewright.recipe import Recipe
from tunewright.tasks.align_scoring import AlignScorer, HeldOut, wanted_completions
from tunewright.tasks.pretraining import pretraining_rows
from tunewright.tasks.rewards import MixedReward, build_reward
from tunewright.tasks.task import Lesson, ScoringParts

SAMPLED = 1000  # rows whose lengths decide


@dataclass(frozen=True)
class Prompts:
    """Prompts as ids, and as the reward sees them: the `PromptSource` of rollouts and of the scorer."""

    dataset: PromptDataset
    texts: tuple[Asked, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def ids(self, index: int) -> list[int]:
        """What the policy is given."""
        return self.dataset.prompt(index)

    def asked(self, index: int) -> Asked:
        """The same for the reward."""
        return self.texts[index]


@dataclass(frozen=True)
class Rehearsal(LanguageModeling):
    """Stands for an update while memory and time are planned: texts of full length, completions of any words."""

    caches: ClassVar[bool] = False  # what will be written isn't known, so nothing of it can be computed once


@dataclass(frozen=True)
class Align:
    """Prompts to practise on."""

    recipe: Recipe
    runs: Path
    source: BaseModel
    splits: Splits
    format: Format
    answer_limit: int | None  # tokens of an answer as the base was tuned
    train_rows: np.ndarray  # int64 [N]
    validation_rows: np.ndarray  # int64 [N], of the validation source, or of train where it is held out
    said: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Recipe, splits: Splits, runs: Path) -> Align:
        """Find the base's format and hold out prompts. Raises DataError, RecipeError, ModelError."""
        source = resolve_base(recipe.model, recipe.revision, runs)
        kept, beside = kept_in(Path(source.path))
        form = prompt_format(splits.train, recipe.data.template, kept)
        if isinstance(recipe.data.validation, float):
            splits = replace(splits, validation=None)
        train, validation, said = _parts(splits, form, recipe)
        limit = beside.get("max_new_tokens")
        return cls(
            recipe, runs, source, splits, form, limit if isinstance(limit, int) else None, train, validation,
            (*form.said, *said),
        )  # fmt: skip

    @cached_property
    def reward(self) -> MixedReward:
        """What completions are scored by."""
        return build_reward(self.recipe.reward, self.runs, self.recipe.training.device)

    @cached_property
    def judge(self) -> MixedReward | None:
        """What judges them and is never learnt from."""
        wanted = self.recipe.evaluation.judge
        device = self.recipe.training.device
        return build_reward([wanted], self.runs, device, field="evaluation.judge") if wanted else None

    @property
    def validation_source(self) -> Source:
        return self.splits.validation or self.splits.train

    @property
    def fingerprint(self) -> str:
        held_out = self.splits.validation.fingerprint() if self.splits.validation else self.recipe.data.validation
        return f"{self.splits.train.fingerprint()}:{held_out}:{self.format.signature}"

    def load(self, source: BaseModel, recipe: Recipe, dropout: float | None) -> Loaded:
        """The policy as it starts, after everything that scores it. ModelError for a model that doesn't write on."""
        first = tuple(self._asked(self.splits.train, self.train_rows[:1]))
        self.reward.check(first)
        if self.judge is not None:
            self.judge.check(first)
        beside = recipe.trainable.method == "lora"
        loaded = load_policy(source, seed=recipe.training.seed, dropout=dropout, beside=beside)
        if loaded.kind != "causal":
            named = loaded.model.config.model_type
            raise ModelError(
                f"a {named} model doesn't write from left to right; task align needs one that does, such as "
                "gemma3-270m",
                field="model",
            )
        return loaded

    def head(self, loaded: Loaded) -> tuple[str, ...]:
        return new_modules(loaded.model, loaded.new_parameters)

    def facts(self, recipe: Recipe, loaded: Loaded) -> Facts:
        encoder = RowEncoder.of(self.format, loaded.tokenizer)
        rows = itertools.islice(self.splits.train.rows(), SAMPLED)
        return Facts(
            num_examples=len(self.train_rows),
            token_lengths=np.array([len(encoder.prompt_ids(row)) for row in rows]),
            context_length=context_length(loaded.model.config),
            num_parameters=sum(p.numel() for p in loaded.model.parameters()),
            kind="align",
            default_metric="reward",
            learn=self.format.learn,
            answer_limit=self.answer_limit,
        )

    def tokenize(self, recipe: Recipe, loaded: Loaded, cache: Path) -> Tokenized:
        encoder, new = self._encoder(recipe, loaded.tokenizer), recipe.evaluation.max_new_tokens
        assert isinstance(new, int)
        positions = context_length(loaded.model.config)
        train = tokenize_prompts(self.splits.train.rows(), encoder, new, positions)
        held_out = self.splits.validation
        judged = train if held_out is None else tokenize_prompts(held_out.rows(), encoder, new, positions)
        return Tokenized(train.subset(self.train_rows), judged.subset(self.validation_rows))

    def _encoder(self, recipe: Recipe, tokenizer: Any) -> RowEncoder:
        longest = recipe.data.max_length
        assert isinstance(longest, int)
        return RowEncoder.of(self.format, tokenizer, longest, recipe.data.truncate)

    def cut_words(self, recipe: Recipe, part: TokenizedDataset) -> str | None:
        if not part.truncated_rows:
            return None
        return (
            f"{part.truncated_rows:,} of {len(part):,} prompts cut to {recipe.data.max_length} tokens on the "
            f"{recipe.data.truncate}"
        )

    def objective(self, recipe: Recipe, tokens: Tokenized, loaded: Loaded) -> Rehearsal:
        return Rehearsal()

    def scorer(self, parts: ScoringParts) -> AlignScorer:
        encoder = self._encoder(parts.recipe, parts.tokenizer)
        source, rows = self.validation_source, self.validation_rows
        held_out = HeldOut(
            prompts=Prompts(_prompts(parts.tokens.validation), tuple(self._asked(source, rows))),
            where=[row.where for row in _rows(source, rows)],
            ending=_ending(encoder),
            shown=self._shown(parts, encoder),
            wanted=wanted_completions(_rows(source, rows), encoder),
        )
        self._share(parts.forward)
        return AlignScorer(held_out, Reference.of(parts.forward), self.reward, self.judge, parts)

    def _share(self, policy: Forward) -> None:
        """From now on whatever stands on the policy's own base answers from its layers; the bodies of its own go."""
        self.__dict__["reward"] = self.reward.sharing(policy)
        self.__dict__["judge"] = self.judge.sharing(policy) if self.judge else None

    def _shown(self, parts: ScoringParts, encoder: RowEncoder) -> Prompts | None:
        """The recipe's own prompts."""
        texts, new = parts.recipe.evaluation.prompts, parts.recipe.evaluation.max_new_tokens
        if not texts:
            return None
        assert isinstance(new, int)
        rows = [self.format.row(text, "evaluation.prompts", number) for number, text in enumerate(texts)]
        dataset = tokenize_prompts(rows, encoder, new, context_length(parts.forward.config))
        return Prompts(dataset, tuple(Asked(prompt_text(self.format, row), row.values) for row in rows))

    def learn(self, lesson: Lesson) -> FitState:
        """PPO or GRPO, until the plan is done."""
        recipe, scorer = lesson.recipe, lesson.scorer
        assert isinstance(scorer, AlignScorer)
        prompts = Prompts(_prompts(lesson.tokens.train), tuple(self._asked(self.splits.train, self.train_rows)))
        self.reward.check([prompts.asked(i) for i in range(len(prompts))])
        width, seed = lesson.forward.config.get_text_config(decoder=True).hidden_size, recipe.training.seed
        return ppo(
            lesson.forward,
            scorer.reference,
            ValueHead(width, seed=seed) if recipe.align.method == "ppo" else None,
            prompts,
            self.reward,
            lesson.plan,
            ppo_plan(recipe),
            lesson.checkpoints,
            lesson.hooks,
            lesson.runtime,
            lesson.resume,
            pretraining_rows(recipe, lesson.tokenizer, lesson.recorder.say) if recipe.align.ptx else None,
            ending=_ending(self._encoder(recipe, lesson.tokenizer)),
        )

    def _asked(self, source: Source, rows: np.ndarray) -> list[Asked]:
        return [Asked(prompt_text(self.format, row), row.values) for row in _rows(source, rows)]

    def higher_is_better(self, metric: str) -> bool:
        return HIGHER_IS_BETTER[metric]

    def describe(self) -> dict[str, Any]:
        return {"kind": "align", "labels": [], "format": self.format.name, "learn": self.format.learn}

    def header(self, recipe: Recipe) -> tuple[str, str]:
        a, steps = recipe.align, recipe.updates_per_iteration
        groups = f" in groups of {a.group_size}" if a.method == "grpo" else ""
        return "align", (
            f"{a.method} · {recipe.training.batch_size} completions{groups} per iteration, {steps} updates each · "
            f"at most {recipe.evaluation.max_new_tokens} tokens · kl_coef {a.kl_coef:g}"
        )

    def put_beside(self, folder: Path, recipe: Recipe) -> None:
        """How a prompt was made, so that it is made the same way when the model is used."""
        body = self.format.to_json() | {"max_new_tokens": recipe.evaluation.max_new_tokens}
        (folder / PROMPT_FORMAT).write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def ppo_plan(recipe: Recipe) -> PpoPlan:
    """The recipe's section as plain numbers. RecipeError's kin where they don't fit each other."""
    values, batch, new = recipe.align.model_dump(), recipe.training.batch_size, recipe.evaluation.max_new_tokens
    assert isinstance(batch, int) and isinstance(new, int)
    own = {name: values[name] for name in PpoPlan.__dataclass_fields__ if name in values}
    return PpoPlan(rollouts_per_iteration=batch, max_new_tokens=new, **own)


def _ending(encoder: RowEncoder) -> Ending:
    return Ending(encoder.encoder.ends, encoder.text, encoder.stop, encoder.encoder.tokenizer)


def _prompts(part: TokenizedDataset) -> PromptDataset:
    assert isinstance(part, PromptDataset)
    return part


def _rows(source: Source, rows: np.ndarray) -> list[Any]:
    """These rows, in this order."""
    wanted = set(map(int, rows))
    found = {row.number: row for row in source.rows() if row.number in wanted}
    return [found[int(number)] for number in rows]


def _parts(splits: Splits, form: Format, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Prompts that train, prompts that judge, and what there is to say. Equal ones never fall on both sides."""
    data, asked = recipe.data, _hashes(splits.train, form)
    said: list[str] = []
    if splits.validation is None:
        fraction = data.validation if isinstance(data.validation, float) else HELD_OUT
        strata = np.zeros(len(asked), np.int32)
        train, validation = split(strata, asked, fraction, recipe.training.seed, splits.train.name)
    else:
        judged = _hashes(splits.validation, form)
        train, validation = np.arange(len(asked)), np.arange(len(judged))
        if known := len(leaks(asked, judged)):
            said = [f"{known:,} of {len(judged):,} held-out prompts are in train too: the score flatters"]
    if data.duplicates == "drop":
        train = train[first_of_each(asked[train])]
    return train, validation, said


def _hashes(source: Source, form: Format) -> np.ndarray:
    """uint64 [N]: equal prompts, equal number."""
    return np.array([text_hash(prompt_text(form, row)) for row in source.rows()], np.uint64)
