"""Scores of a model that learns from comparisons by DPO: how it ranks held-out ones, and what it writes.

    validation comparisons ─log π − log π_ref─▶ implicit rewards ─▶ judged as a reward model's scores are
    their prompts ─answered before and after─▶ judged as for PPO: distance, readability, a judge that training never saw

The untrained model is the reference, so what it prefers is known without a look: nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.data.comparisons import Comparisons
from tunewright.evaluation import direct_preferences, preferences
from tunewright.evaluation.preferences import LengthRival, Scored
from tunewright.evaluation.statistics import Paired
from tunewright.learning.direct_preference import completion_logprobs
from tunewright.models.starting import Reference
from tunewright.recording import read_jsonl
from tunewright.tasks.align_scoring import AlignScorer, HeldOut
from tunewright.tasks.reward_scoring import completion_text, readable
from tunewright.tasks.rewards import MixedReward
from tunewright.tasks.task import ScoringParts

NO_REWARD = MixedReward((), (), ())  # which finds every completion worth 0
_BY_REWARD = ("score", "probability", "reward", "win_rate", "score_before", "probability_before")  # what it then says
WRITTEN, COMPARED = "predictions/validation.jsonl", "predictions/comparisons.jsonl"


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
        self.rewards = np.zeros(int(self.validation.num_texts.sum())) if first else self._rewards()
        return direct_preferences.metrics(Scored.of(self.validation, self.rewards), self.beta) | written

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
        ends = direct_preferences.intervals(scored, self.beta, samples, seed)
        if warning := direct_preferences.warning(ends):
            recorder.say(warning, "warning")
        judged = preferences.judge(scored, self._rival(), self.comparisons.annotators, samples, seed)
        metrics = direct_preferences.metrics(scored, self.beta) | _unrewarded(written["metrics"])
        found = {
            "metrics": metrics,
            "intervals": {name: one.to_json() for name, one in ends.items()} | _unrewarded(written["intervals"]),
            "baseline": {},  # what length alone would do is in `length`
            "length": judged["length"],
            "annotators": judged["annotators"],
        }
        counts = {"num_rows": len(self.validation), "answered_rows": len(self.written.numbers)}
        kept = {name: judged[name] for name in ("comparisons", "ties", "reliability", "notes")}
        recorder.write("evaluation.json", json.dumps({"kind": "align", **counts, **kept, **found}, ensure_ascii=False))
        self._write_rows(rewards)
        return found | {
            "comparison": self._comparison(written["comparison"], scored, metrics, samples, seed),
            "forgetting": written["forgetting"],
            "comparisons": {"judged": judged["comparisons"], "ties": judged["ties"]},
            "alignment": self._described(written["alignment"]),
        }

    # ---- parts ----

    def _rewards(self) -> np.ndarray:
        assert self.ref_logprobs is not None, "whoever learns says what the reference thinks"
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

    def _rival(self) -> LengthRival:
        """Length alone, as the training comparisons teach it."""
        scored = Scored.of(self.train, np.zeros(int(self.train.num_texts.sum())))
        return LengthRival.fitted(scored.length_ratios, scored.weights)

    def _comparison(
        self, written: Mapping[str, Any] | None, scored: Scored, after: dict[str, float], samples: int, seed: int
    ) -> dict[str, Any] | None:
        """Before and after, where the untrained model's answers are known."""
        if written is None:
            return None
        ranked = direct_preferences.paired(scored, self.beta, samples, seed)
        return {
            "before": direct_preferences.at_the_start(scored) | _unrewarded(written["before"]),
            "after": after,
            "paired": {name: _paired_json(one) for name, one in ranked.items()} | _unrewarded(written["paired"]),
        }

    def _described(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """Method and judge, in the words of PPO's runs, so that they can stand side by side."""
        found = {name: value for name, value in written.items() if name not in ("kl_coef", "reward")}
        return found | {"beta": self.beta, "win_rates": _unrewarded(written["win_rates"])}

    def _write_rows(self, rewards: np.ndarray) -> None:
        """Answers and comparisons, for people who read them."""
        recorder = self.parts.recorder
        if recorder.writes:
            answers = [_unrewarded(row) for row in read_jsonl(recorder.folder / WRITTEN)]
            recorder.write_rows(WRITTEN, iter(answers))
            recorder.write_rows(COMPARED, self._compared_rows(rewards))

    def _compared_rows(self, rewards: np.ndarray) -> Iterator[dict[str, Any]]:
        """One row per validation prompt: its completions, their implicit rewards, and how people compared them."""
        own = dict(zip(self.rows.tolist(), np.split(rewards, np.cumsum(self.validation.num_texts)[:-1]), strict=True))
        for number, group in enumerate(self.comparisons.groups()):
            if number in own:
                yield {
                    "row": group.where,
                    "prompt": readable(self.comparisons.format, group.rows[0]),
                    "completions": [completion_text(row) for row in group.rows],
                    "rewards": [round(float(reward), 6) for reward in own[number]],
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


def _paired_json(one: Paired) -> dict[str, Any]:
    return asdict(one) | {"interval": one.interval.to_json()}
