"""Scores of a model that learns from comparisons by DPO: how it ranks held-out ones, and what it writes.

    validation comparisons ─log π − log π_ref─▶ implicit rewards ─▶ judged as a reward model's scores are
    their prompts ─answered before and after─▶ judged as for PPO: distance, readability, a judge that training never saw

The untrained model is the reference, so before is known without a look: every implicit reward is 0.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.data.comparisons import Comparisons
from tunewright.evaluation import direct_preferences, preferences
from tunewright.evaluation.preferences import LengthRival, Scored
from tunewright.learning.direct_preference import completion_logprobs
from tunewright.models.starting import Reference
from tunewright.tasks.align_scoring import AlignScorer, HeldOut
from tunewright.tasks.reward_scoring import completion_text, readable
from tunewright.tasks.rewards import MixedReward
from tunewright.tasks.task import ScoringParts

NO_REWARD = MixedReward((), (), ())  # which finds every completion worth 0
_BY_REWARD = ("score", "probability", "reward", "win_rate")  # what it is then said to find


class DirectPreferenceScorer:
    """The `Scorer` of task align with dpo."""

    def __init__(
        self,
        comparisons: Comparisons,
        rows: np.ndarray,
        held_out: HeldOut,
        judge: MixedReward | None,
        parts: ScoringParts,
    ) -> None:
        """`rows`: which prompts of the comparisons are the validation part, as its dataset has them."""
        self.comparisons, self.rows, self.parts = comparisons, rows, parts
        self.train, self.validation = (_compared(part) for part in (parts.tokens.train, parts.tokens.validation))
        self.beta = parts.recipe.align.beta
        self.written = AlignScorer(held_out, Reference.of(parts.forward), NO_REWARD, judge, parts)
        self.ref_logprobs: np.ndarray | None = None  # float64, of every validation text; told before learning begins
        self.rewards: np.ndarray | None = None  # float64, the implicit reward of every validation text now

    # ---- what the judge calls ----

    def score(self, first: bool) -> dict[str, float]:
        """Metrics of the validation comparisons, and of the answers to their prompts, now."""
        written = _unrewarded(self.written.score(first))
        self.rewards = self._rewards(first)
        scored = Scored.of(self.validation, self.rewards)
        return preferences.metrics(scored) | direct_preferences.metrics(scored, self.beta) | written

    def keep(self, name: str) -> None:
        """Rewards and answers survive a kill: the final table needs those of the best step."""
        assert self.rewards is not None
        tensors = {"rewards": torch.from_numpy(self.rewards)}
        self.parts.recorder.write_tensors(f"predictions/{name}-rewards.safetensors", tensors)
        self.written.keep(name)

    def samples(self) -> list[dict[str, Any]]:
        """The likeliest words for the first prompts."""
        return [_unrewarded(row) for row in self.written.samples()]

    def finish(self) -> dict[str, Any]:
        recipe, recorder = self.parts.recipe, self.parts.recorder
        samples, seed = recipe.evaluation.bootstrap_samples, recipe.training.seed
        written = self.written.finish()
        rewards = self._kept("validation")
        scored = Scored.of(self.validation, rewards)
        rival = LengthRival.fitted(*_lengths(self.train))
        body = preferences.judge(scored, rival, self.comparisons.annotators, samples, seed)
        changes = direct_preferences.metrics(scored, self.beta)
        ends = direct_preferences.intervals(scored, self.beta, samples, seed)
        body["metrics"] |= changes | _unrewarded(written["metrics"])
        body["intervals"] |= {name: one.to_json() for name, one in ends.items()} | _unrewarded(written["intervals"])
        body["notes"] += direct_preferences.notes(changes, ends)
        body["answered_rows"] = len(self.written.numbers)
        recorder.write("evaluation.json", json.dumps(body, ensure_ascii=False))
        recorder.write_rows("predictions/comparisons.jsonl", self._predictions(rewards))
        return {
            "metrics": body["metrics"],
            "intervals": body["intervals"],
            "baseline": body["baseline"],
            "comparison": self._comparison(written["comparison"], scored, body["metrics"], samples, seed),
            "forgetting": written["forgetting"],
            "length": body["length"],
            "annotators": body["annotators"],
            "comparisons": {"judged": body["comparisons"], "ties": body["ties"]},
            "alignment": self._described(written["alignment"]),
        }

    # ---- parts ----

    def _rewards(self, first: bool) -> np.ndarray:
        if first:
            return np.zeros(int(self.validation.num_texts.sum()))
        assert self.ref_logprobs is not None, "learning tells what the reference thinks"
        parts = self.parts
        now = completion_logprobs(
            parts.forward,
            self.validation,
            cache=parts.cache,
            runtime=parts.runtime,
            before_batch=parts.stop_if_asked,
        )
        return self.beta * (now - self.ref_logprobs)

    def _kept(self, name: str) -> np.ndarray:
        return load_file(self.parts.recorder.folder / "predictions" / f"{name}-rewards.safetensors")["rewards"].numpy()

    def _comparison(
        self, written: Mapping[str, Any] | None, after: Scored, metrics: dict[str, float], samples: int, seed: int
    ) -> dict[str, Any] | None:
        """With the untrained model, where its answers are known: it prefers nothing."""
        if written is None:
            return None
        start = Scored.of(self.validation, self._rewards(first=True))
        before = preferences.metrics(start) | direct_preferences.metrics(start, self.beta)
        found = {
            "before": before | _unrewarded(written["before"]),
            "after": metrics,
            "paired": _unrewarded(written["paired"]),
        }
        decided = after.decided
        if not decided.any():
            return found
        test = preferences.paired(
            start.differences[decided], after.differences[decided], after.prompts[decided], samples, seed
        )
        return found | {"fixed": test.fixed, "broke": test.broke, "p_value": test.p_value}

    def _described(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """Method and judge, in the words of PPO's runs, so that they can stand side by side."""
        found = {name: value for name, value in written.items() if name not in ("kl_coef", "reward")}
        return found | {"beta": self.beta, "win_rates": _unrewarded(written["win_rates"])}

    def _predictions(self, rewards: np.ndarray) -> Iterator[dict[str, Any]]:
        """One row per validation prompt: its completions, their implicit rewards, and how people compared them."""
        every = enumerate(self.comparisons.groups())
        wanted = set(map(int, self.rows))
        groups = (group for number, group in itertools.takewhile(lambda at: at[0] <= max(wanted), every)
                  if number in wanted)  # fmt: skip
        for group, own in zip(groups, np.split(rewards, np.cumsum(self.validation.num_texts)[:-1]), strict=True):
            yield {
                "row": group.where,
                "prompt": readable(self.comparisons.format, group.rows[0]),
                "completions": [completion_text(row) for row in group.rows],
                "scores": [round(float(reward), 6) for reward in own],
                "comparisons": [
                    {"better": pair.better, "worse": pair.worse, "weight": pair.weight, "annotator": pair.annotator}
                    for pair in group.pairs
                ],
            }


def _unrewarded(found: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a reward says, where there is none."""
    return {name: value for name, value in found.items() if name not in _BY_REWARD}


def _compared(part: Any) -> ComparisonDataset:
    assert isinstance(part, ComparisonDataset)
    return part


def _lengths(dataset: ComparisonDataset) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of lengths and weights of all comparisons, [P] each."""
    scored = Scored.of(dataset, np.zeros(int(dataset.num_texts.sum())))
    return scored.length_ratios, scored.weights
