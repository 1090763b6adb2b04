"""Scores of a model that is aligned by a reward, during and after a run: held-out prompts answered and judged.

    held-out prompts ─policy, a seed per row─▶ completions ─▶ score, judge, KL from the reference, what still differs
                     └─likeliest words─▶ the transcripts

The untrained model answers the same prompts with the same random numbers, so before and after can be compared pair by
pair. What the numbers mean is in `evaluation.alignment`; which reward and which judge, the task says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tunewright.data.examples import Row
from tunewright.data.values import plain
from tunewright.data.written_tokens import RowEncoder, WrittenDataset
from tunewright.errors import DataError
from tunewright.evaluation import alignment
from tunewright.evaluation.alignment import AlignScores, Completions, WinRate
from tunewright.evaluation.report_align import HELD_OUT_PROMPTS
from tunewright.evaluation.statistics import Paired
from tunewright.learning.rollouts import Asked, Ending, PromptSource
from tunewright.models.divergence import divergences
from tunewright.models.generation import Generated, generate
from tunewright.models.likelihoods import MeasuredExamples, target_likelihoods
from tunewright.models.sampling import Sampling
from tunewright.models.starting import Reference
from tunewright.recipe_align import RewardRecipe
from tunewright.recording import read_jsonl
from tunewright.tasks.retaining import Retaining
from tunewright.tasks.rewards import MixedReward
from tunewright.tasks.task import ScoringParts

TRANSCRIPTS = 10  # prompts shown before and after
_OWN_STREAM = 0x5C0E  # beside the run's seed, so that the completions that judge are none of those that teach


@dataclass(frozen=True)
class HeldOut:
    """Prompts that training never saw, and how they are answered."""

    prompts: PromptSource
    where: Sequence[str]  # file and row of each prompt
    ending: Ending
    shown: PromptSource | None = None  # the recipe's own prompts for the transcripts; None: the first of `prompts`
    wanted: MeasuredExamples | None = None  # held-out rows with the completions that the data holds, where it holds any


class AlignScorer:
    """The `Scorer` of task align with ppo and grpo."""

    def __init__(
        self, held_out: HeldOut, reference: Reference, reward: MixedReward, judge: MixedReward | None,
        parts: ScoringParts,
    ) -> None:  # fmt: skip
        """`reference` is the starting model's; a `judge` is asked, never learnt from."""
        self.held_out, self.reference, self.reward, self.judge, self.parts = held_out, reference, reward, judge, parts
        evaluation = parts.recipe.evaluation
        wanted = evaluation.generate_rows if isinstance(evaluation.generate_rows, int) else len(held_out.prompts)
        self.numbers = range(min(max(wanted, 1), len(held_out.prompts)))
        assert isinstance(evaluation.max_new_tokens, int)
        seed = np.random.SeedSequence([parts.recipe.training.seed, _OWN_STREAM]).generate_state(1)[0]
        ending = held_out.ending
        self.sampling = Sampling(
            max_new_tokens=evaluation.max_new_tokens, temperature=parts.recipe.align.temperature,
            stop=ending.stop, eos_ids=ending.eos_ids, seed=int(seed),
        )  # fmt: skip
        self.retaining = Retaining(parts)
        self.found: Measured | None = None  # of the latest evaluation

    # ---- what the judge calls ----

    def score(self, first: bool) -> dict[str, float]:
        """Metrics of the held-out prompts now; win rates once there is an untrained model to win against."""
        if first:
            self.retaining.remember()
        self.found = self._measured()
        before = None if first else self._kept("before")
        return self._scores(self.found, before).metrics

    def keep(self, name: str) -> None:
        assert self.found is not None
        self.parts.recorder.write_tensors(f"predictions/{name}-measured.safetensors", self.found.tensors())
        rows = zip(self.found.completions.texts, self.found.stopped, strict=True)
        self.parts.recorder.write_rows(
            f"predictions/{name}-completions.jsonl", ({"text": text, "stopped": how} for text, how in rows)
        )

    def samples(self) -> list[dict[str, Any]]:
        """The likeliest words for a few prompts, with their score: what the model says when no chance is involved."""
        shown = self.held_out.shown or self.held_out.prompts
        numbers = range(min(len(shown), TRANSCRIPTS if self.held_out.shown is None else len(shown)))
        if not numbers:
            return []
        answers = self._written(shown, numbers, replace(self.sampling, temperature=0.0))
        asked, texts = [shown.asked(i) for i in numbers], [self.held_out.ending.text(one.ids) for one in answers]
        scores = {"score": self.reward(asked, texts)} | ({"judge": self.judge(asked, texts)} if self.judge else {})
        return [
            {"prompt_id": i, "prompt": asked[i].text, "prediction": texts[i], "stopped": answers[i].stopped}
            | {name: float(values[i]) for name, values in scores.items()}
            for i in numbers
        ]

    def finish(self) -> dict[str, Any]:
        recipe, recorder = self.parts.recipe, self.parts.recorder
        after, before = self._kept("validation"), self._kept("before")
        assert after is not None
        samples, seed = recipe.evaluation.bootstrap_samples, recipe.training.seed
        scores = self._scores(after, before)
        won = alignment.win_rates(before.completions, after.completions) if before else {}
        intervals = alignment.intervals(scores, samples, seed, won)
        wanted = after.completions.wanted
        body = {
            "kind": "align",
            "num_rows": len(self.numbers) if wanted is None else len(wanted),
            "answered_rows": len(self.numbers),
            "metrics": scores.metrics,
            "intervals": {name: one.to_json() for name, one in intervals.items()},
        }
        recorder.write("evaluation.json", json.dumps(body, ensure_ascii=False))
        recorder.write_rows("predictions/validation.jsonl", self._predictions(after, before))
        asked = (self.held_out.prompts.asked(number) for number in self.numbers)
        recorder.write_rows(HELD_OUT_PROMPTS.as_posix(), (_as_json(one.values) for one in asked))
        old = self._scores(before, None) if before else None
        return {
            "metrics": body["metrics"],
            "intervals": body["intervals"],
            "baseline": {},
            "comparison": None if old is None else _comparison(old, scores, samples, seed),
            "forgetting": self.retaining.forgotten(),
            "alignment": self._described(won),
        }

    # ---- completions and what is measured of them ----

    def _measured(self) -> Measured:
        answers, source = self._written(self.held_out.prompts, self.numbers, self.sampling), self.held_out.prompts
        texts = [self.held_out.ending.text(one.ids) for one in answers]
        asked, parts = [source.asked(i) for i in self.numbers], self.parts
        parts.stop_if_asked()
        apart = divergences(
            parts.forward, self.reference, [source.ids(i) for i in self.numbers], [one.ids for one in answers],
            temperature=self.sampling.temperature, before_batch=parts.stop_if_asked,
        )  # fmt: skip
        more = self._scored(asked, texts)
        completions = Completions(
            texts=texts,
            score=more.pop("score"),
            kl=apart.kl,
            ref_nats=apart.ref_nats,
            length=np.array([len(one.ids) for one in answers], np.int64),
            ended=np.array([one.stopped != "length" for one in answers], np.bool_),
            more=more,
            wanted=self._of_wanted(),
        )
        return Measured(completions, [one.stopped for one in answers])

    def _written(self, source: PromptSource, numbers: Sequence[int], sampling: Sampling) -> list[Generated]:
        parts = self.parts
        return generate(
            parts.forward.model,
            [source.ids(i) for i in numbers],
            sampling,
            on_token=lambda _row, _token: parts.stop_if_asked(),
            tokenizer=self.held_out.ending.tokenizer or parts.tokenizer,
            numbers=list(numbers),
            precision=parts.forward.precision,
        )

    def _scored(self, asked: Sequence[Asked], texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The reward's and the judge's score of each completion, and beliefs where classifiers are asked."""
        recipe, found = self.parts.recipe, dict[str, np.ndarray | None]()
        asking = [("score", "probability", self.reward, recipe.reward)]
        if self.judge is not None and recipe.evaluation.judge is not None:
            asking.append(("judge", "judge_probability", self.judge, [recipe.evaluation.judge]))
        for name, probability, reward, sources in asking:
            self.parts.stop_if_asked()
            apart = reward.apart(asked, texts)
            found[name] = sum((w * one for w, one in zip(reward.weights, apart, strict=True)), np.zeros(len(texts)))
            found[probability] = belief(sources, apart)
        return {name: values for name, values in found.items() if values is not None}

    def _of_wanted(self) -> np.ndarray | None:
        """Nats and tokens of the completions that the data holds, float64 [M, 2]."""
        parts, wanted = self.parts, self.held_out.wanted
        if wanted is None:
            return None
        found = target_likelihoods(parts.forward, wanted, runtime=parts.runtime, before_batch=parts.stop_if_asked)
        return np.column_stack([found.nats, found.tokens]).astype(np.float64)

    def _scores(self, found: Measured, before: Measured | None) -> AlignScores:
        earlier = before.completions if before else None
        return alignment.measured(found.completions, self.parts.recipe.align.kl_coef, earlier)

    def _kept(self, name: str) -> Measured | None:
        folder = self.parts.recorder.folder / "predictions"
        path = folder / f"{name}-measured.safetensors"
        if not path.exists():
            return None
        rows = list(read_jsonl(folder / f"{name}-completions.jsonl"))
        return Measured.of_tensors(load_file(path), [row["text"] for row in rows], [row["stopped"] for row in rows])

    # ---- what is written down ----

    def _described(self, won: Mapping[str, WinRate]) -> dict[str, Any]:
        recipe = self.parts.recipe
        return {
            "method": recipe.align.method,
            "kl_coef": recipe.align.kl_coef,
            "temperature": recipe.align.temperature,
            "reward": [reward_words(source) for source in recipe.reward],
            "judge": reward_words(recipe.evaluation.judge) if recipe.evaluation.judge else None,
            "judge_is_reward": any(_same_source(recipe.evaluation.judge, source) for source in recipe.reward),
            "prompts": len(self.numbers),
            "win_rates": {name: one.to_json() for name, one in won.items()},
        }

    def _predictions(self, after: Measured, before: Measured | None) -> Iterator[dict[str, Any]]:
        for place, number in enumerate(self.numbers):
            row = {"row": self.held_out.where[number], "prompt": self.held_out.prompts.asked(number).text}
            row |= {"prediction": after.completions.texts[place], "stopped": after.stopped[place]}
            row |= after.numbers(place)
            if before is not None:
                row |= {"before": before.completions.texts[place], "stopped_before": before.stopped[place]}
                row |= {f"{name}_before": value for name, value in before.numbers(place).items()}
            yield row


@dataclass(frozen=True)
class Measured:
    """Completions with their numbers, and how each ended."""

    completions: Completions
    stopped: Sequence[str]  # eos, stop, length

    def numbers(self, place: int) -> dict[str, float]:
        """Of one completion, for a person who reads it."""
        found = self.completions
        columns = {"score": found.score, **found.more, "kl": found.kl}
        return {name: float(values[place]) for name, values in columns.items()} | {"tokens": int(found.length[place])}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every number, to the last bit."""
        found = self.completions
        columns = {"score": found.score, "kl": found.kl, "ref_nats": found.ref_nats, "length": found.length}
        columns |= {"ended": found.ended} | {f"more.{name}": values for name, values in found.more.items()}
        columns |= {"wanted": found.wanted} if found.wanted is not None else {}
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in columns.items()}

    @classmethod
    def of_tensors(cls, stored: Mapping[str, torch.Tensor], texts: Sequence[str], stopped: Sequence[str]) -> Measured:
        """As stored."""
        arrays = {name: tensor.numpy() for name, tensor in stored.items()}
        more = {name.removeprefix("more."): values for name, values in arrays.items() if name.startswith("more.")}
        plain = {name: arrays[name] for name in ("score", "kl", "ref_nats", "length", "ended")}
        return cls(Completions(texts, **plain, more=more, wanted=arrays.get("wanted")), stopped)


def belief(sources: Sequence[RewardRecipe], apart: Sequence[np.ndarray]) -> np.ndarray | None:
    """The classifier's probability [N] behind its scores, where one of the sources is one; else None."""
    asked = [(one, scores) for one, scores in zip(sources, apart, strict=True) if one.classifier is not None]
    if len(asked) != 1:
        return None
    source, scores = asked[0]
    return scores if source.value == "probability" else 1 / (1 + np.exp(-scores))


def wanted_completions(rows: Sequence[Row], encoder: RowEncoder) -> WrittenDataset | None:
    """The rows with the completions that the data holds, to see what is kept of the task; None where it holds none."""
    if encoder.format.learn == "all":
        return None  # plain text: the prompt itself would be measured
    try:
        found = encoder.encoder.encode_all([encoder.segments(row) for row in rows], [row.where for row in rows])
    except DataError:
        return None  # prompts alone, as is usual here
    lengths = np.array([len(tokens.ids) for tokens in found], np.int32)
    return WrittenDataset(
        input_ids=np.concatenate([np.array(tokens.ids, np.int32) for tokens in found]),
        targets=np.concatenate([np.array(tokens.is_target, np.bool_) for tokens in found]),
        starts=np.cumsum(lengths, dtype=np.int64) - lengths,
        lengths=lengths,
        full_lengths=lengths,
        rows=np.array([row.number for row in rows], np.int64),
        labels=np.zeros((len(rows), 0), np.float32),
        fingerprint="",
    )


def reward_words(source: RewardRecipe) -> str:
    """`reward model run:ranked`, `positive by run:reviews`, `2 rules`."""
    factor = "" if source.weight == 1 else f"{source.weight:g} × "
    if source.model is not None:
        return f"{factor}reward model {source.model}"
    if source.classifier is not None:
        return f"{factor}{source.value.replace('_', '-')} of {source.label} by {source.classifier}"
    rules = len(source.rules or ())
    return f"{factor}{rules} rule{'' if rules == 1 else 's'}"


def _same_source(one: RewardRecipe | None, other: RewardRecipe) -> bool:
    """Whether two rewards ask the same model, or follow the same rules: weights and scales make no other judge."""
    return one is not None and (one.model, one.classifier, one.rules) == (other.model, other.classifier, other.rules)


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row's columns; what JSON can't hold, a date for example, as text."""
    return json.loads(json.dumps({name: plain(value) for name, value in values.items()}, default=str))


def _comparison(before: AlignScores, after: AlignScores, samples: int, seed: int) -> dict[str, Any]:
    paired = alignment.paired(before, after, samples, seed)
    return {
        "before": before.metrics,
        "after": after.metrics,
        "paired": {name: _paired_json(name, one) for name, one in paired.items()},
    }


def _paired_json(name: str, one: Paired) -> dict[str, Any]:
    """With the prompts that came out better and worse, where a prompt can."""
    counts = {"fixed": one.fixed, "broke": one.broke} if name in alignment.BY_PROMPT else {}
    return counts | {"p_value": one.p_value, "difference": one.difference, "interval": one.interval.to_json()}
