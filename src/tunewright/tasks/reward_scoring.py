"""Scores of a reward model during and after a run: how often it agrees with held-out comparisons, and with what.

Length alone is judged beside it, since people like long answers. At the end the scores are given a zero: the mean score
of the completions that people found best among the validation rows, which the model hasn't learnt by heart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tunewright.data.comparison_reading import COMPLETION
from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.data.comparisons import Comparisons, Group
from tunewright.data.conversations import Conversation
from tunewright.data.examples import Row
from tunewright.data.written import Format
from tunewright.evaluation import preferences
from tunewright.evaluation.preferences import LengthRival, Scored
from tunewright.learning.preference import text_scores
from tunewright.serving.reward_model import REWARD, Normalisation
from tunewright.tasks.retaining import Retaining
from tunewright.tasks.task import FIRST_ROWS, ScoringParts


class RewardScorer:
    """The `Scorer` of task reward."""

    def __init__(self, comparisons: Comparisons, rows: np.ndarray, parts: ScoringParts) -> None:
        self.comparisons, self.rows, self.parts = comparisons, rows, parts
        train, validation = parts.tokens.train, parts.tokens.validation
        assert isinstance(train, ComparisonDataset) and isinstance(validation, ComparisonDataset)
        self.train, self.validation = train, validation
        self.retaining = Retaining(parts)
        self.found: np.ndarray | None = None  # float64, the score of every validation text at the latest evaluation

    # ---- what the judge calls ----

    def score(self, first: bool) -> dict[str, float]:
        """Metrics of the validation comparisons now."""
        if first:
            self.retaining.remember()
        self.found = text_scores(
            self.parts.forward,
            self.validation,
            cache=self.parts.cache,
            runtime=self.parts.runtime,
            before_batch=self.parts.stop_if_asked,
        )
        return preferences.metrics(Scored.of(self.validation, self.found))

    def keep(self, name: str) -> None:
        """Scores survive a kill: the final table needs those of the best step and of the untrained model."""
        assert self.found is not None
        tensors = {"scores": torch.from_numpy(self.found)}
        self.parts.recorder.write_tensors(f"predictions/{name}-scores.safetensors", tensors)

    def samples(self) -> list[dict[str, Any]]:
        """The first validation prompts, each completion with its score; 0 is what the best ones score on average."""
        if self.found is None:
            return []
        shown: list[dict[str, Any]] = []
        scores = self.found - self._normalised(self.found).mean
        for place, (group, own) in enumerate(zip(self._first(), np.split(scores, self._ends()), strict=False)):
            decided = [pair for pair in group.pairs if pair.weight > 0.5]
            best = {pair.better for pair in decided} - {pair.worse for pair in decided}
            for number, row in enumerate(group.rows):
                shown.append(
                    {
                        "prompt_id": f"{place}.{number}",
                        "prompt": f"{_short(readable(self.comparisons.format, row))} → {_short(completion_text(row))}",
                        "prediction": float(own[number]),
                        "best": number in best,
                    }
                )
        return shown

    def finish(self) -> dict[str, Any]:
        after, before = self._kept("validation"), self._kept("before")
        assert after is not None
        evaluation, recorder = self.parts.recipe.evaluation, self.parts.recorder
        samples, seed = evaluation.bootstrap_samples, self.parts.recipe.training.seed
        rival = LengthRival.fitted(*_lengths(self.train))
        scored, normal = Scored.of(self.validation, after), self._normalised(after)
        body = preferences.judge(scored, rival, self.comparisons.annotators, samples, seed)
        recorder.write("evaluation.json", json.dumps(body, ensure_ascii=False))
        recorder.write(f"model/{REWARD}", normal.written())
        recorder.write_rows("predictions/validation.jsonl", self._predictions(after - normal.mean, before))
        return {
            "metrics": body["metrics"],
            "intervals": body["intervals"],
            "baseline": body["baseline"],
            "comparison": None if before is None else self._comparison(before, scored, body, samples, seed),
            "forgetting": self.retaining.forgotten(),
            "length": body["length"],
            "annotators": body["annotators"],
            "comparisons": {"judged": body["comparisons"], "ties": body["ties"]},
            "reward": normal.to_json(),
        }

    # ---- parts ----

    def _comparison(
        self, before: np.ndarray, after: Scored, body: dict[str, Any], samples: int, seed: int
    ) -> dict[str, Any]:
        then = Scored.of(self.validation, before)
        found: dict[str, Any] = {"before": preferences.metrics(then), "after": body["metrics"]}
        decided = after.decided
        if not decided.any():
            return found
        test = preferences.paired(
            then.differences[decided], after.differences[decided], after.prompts[decided], samples, seed
        )
        return found | {"fixed": test.fixed, "broke": test.broke, "p_value": test.p_value}

    def _normalised(self, scores: np.ndarray) -> Normalisation:
        """The mean of the completions that nobody found worse than another of their prompt."""
        starts = np.cumsum(self.validation.num_texts, dtype=np.int64) - self.validation.num_texts
        best: list[float] = []
        for i in range(len(self.validation)):
            pairs = self.validation.pairs(i)[self.validation.weights(i) > 0.5]
            best += [float(scores[starts[i] + text]) for text in sorted({*pairs[:, 0]} - {*pairs[:, 1]})]
        return Normalisation.of(np.array(best) if best else scores, scores)

    def _ends(self) -> np.ndarray:
        """Where the texts of one prompt end and those of the next begin."""
        return np.cumsum(self.validation.num_texts)[:-1]

    def _first(self) -> list[Group]:
        """The first validation prompts."""
        return list(self._groups(self.rows[:FIRST_ROWS]))

    def _groups(self, rows: np.ndarray) -> Iterator[Group]:
        """These prompts, in the order of the dataset, read no further than the last of them."""
        wanted = set(map(int, rows))
        for number, group in enumerate(self.comparisons.groups()):
            if number in wanted:
                wanted.discard(number)
                yield group
            if not wanted:
                return

    def _predictions(self, after: np.ndarray, before: np.ndarray | None) -> Iterator[dict[str, Any]]:
        """One row per validation prompt: its completions, their scores, and how people compared them."""
        ends = self._ends()
        then = np.split(before, ends) if before is not None else [None] * len(self.validation)
        for group, now, old in zip(self._groups(self.rows), np.split(after, ends), then, strict=True):
            yield {
                "row": group.where,
                "prompt": readable(self.comparisons.format, group.rows[0]),
                "completions": [completion_text(row) for row in group.rows],
                "scores": [round(float(score), 6) for score in now],
                "before": None if old is None else [round(float(score), 6) for score in old],
                "comparisons": [
                    {"better": pair.better, "worse": pair.worse, "weight": pair.weight, "annotator": pair.annotator}
                    for pair in group.pairs
                ],
            }

    def _kept(self, name: str) -> np.ndarray | None:
        path = self.parts.recorder.folder / "predictions" / f"{name}-scores.safetensors"
        return load_file(path)["scores"].numpy() if path.exists() else None


def _lengths(dataset: ComparisonDataset) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of lengths and weights of all comparisons, [P] each."""
    scored = Scored.of(dataset, np.zeros(int(dataset.num_texts.sum())))
    return scored.length_ratios, scored.weights


def readable(form: Format, row: Row) -> str:
    """A prompt as text: what the template gives, or what the user said last."""
    read = form.prompt(Row({k: v for k, v in row.values.items() if k != COMPLETION}, row.where, row.number))
    if isinstance(read, Conversation):
        return next((message.content for message in reversed(read.messages) if message.role == "user"), "")
    return "".join(segment.text for segment in read).strip()


def _short(text: str, most: int = 100) -> str:
    """The beginning of a text, on one line; predictions/validation.jsonl has it whole."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def completion_text(row: Row) -> str:
    """A completion as text: what the assistant said last."""
    said = row.values[COMPLETION]
    return said if isinstance(said, str) else str(said[-1].get("content") or "")
