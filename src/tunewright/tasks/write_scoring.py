"""Scores of a model that writes, during and after a run: likelihoods of the validation rows, and answers to some.

The same rows are answered by the untrained model, at each evaluation and at the end, so that before and after can be
compared pair by pair. General text is measured before and at the end: what was forgotten.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tunewright.data.examples import Row, Source
from tunewright.data.written_tokens import RowEncoder, WrittenDataset
from tunewright.evaluation import texts
from tunewright.evaluation.texts import TextScores, score_likelihoods, score_texts
from tunewright.models.context import context_length
from tunewright.models.generation import generate
from tunewright.models.likelihoods import Likelihoods
from tunewright.models.sampling import Sampling
from tunewright.recording import read_jsonl
from tunewright.tasks.retaining import Retaining
from tunewright.tasks.task import FIRST_ROWS, ScoringParts
from tunewright.tasks.ways import Way


@dataclass(frozen=True)
class Asked:
    """A row that is answered in text."""

    where: str
    prompt: str  # as a person reads it
    ids: list[int]
    references: tuple[str, ...] = ()


class WriteScorer:
    """The `Scorer` of tasks generate and continue."""

    def __init__(self, source: Source, rows: np.ndarray, encoder: RowEncoder, way: Way, parts: ScoringParts) -> None:
        self.source, self.encoder, self.way, self.parts = source, encoder, way, parts
        evaluation = parts.recipe.evaluation
        self.sampling = _greedy(encoder, evaluation.max_new_tokens)
        wanted = evaluation.generate_rows if isinstance(evaluation.generate_rows, int) else 0
        self.asked = self._asked(rows[:wanted])
        self.prompts = [self._own_prompt(text, i) for i, text in enumerate(evaluation.prompts)]
        if way.writes and not evaluation.prompts:
            self.prompts = self.asked[:FIRST_ROWS] or self._beginnings(rows[:FIRST_ROWS])
        self.retaining = Retaining(parts, way.retained())
        self.found: Likelihoods | None = None  # of the latest evaluation
        self.answers: list[Answer] = []
        self.just_answered = False  # since the weights last changed

    # ---- what the judge calls ----

    def score(self, first: bool) -> dict[str, float]:
        """Metrics of the validation rows now."""
        if first:
            self.retaining.remember()
        validation = self.parts.tokens.validation
        assert isinstance(validation, WrittenDataset)
        self.found = self.way.likelihoods(validation, self.parts)
        self.answers = self._written(self.asked)
        self.just_answered = True
        return _metrics(self._scores(self.found, self.answers))

    def keep(self, name: str) -> None:
        assert self.found is not None
        tensors = {key: torch.from_numpy(getattr(self.found, key)) for key in ("nats", "tokens", "hits")}
        self.parts.recorder.write_tensors(f"predictions/{name}-likelihoods.safetensors", tensors)
        self.parts.recorder.write_rows(
            f"predictions/{name}-answers.jsonl", (answer.to_json() for answer in self.answers)
        )

    def samples(self) -> list[dict[str, Any]]:
        shown = self.prompts == self.asked[: len(self.prompts)]
        answers = self.answers[: len(self.prompts)] if shown and self.just_answered else self._written(self.prompts)
        self.just_answered = False  # the next step changes the weights
        return [
            {"prompt_id": i, "prompt": asked.prompt, "prediction": answer.text, "stopped": answer.stopped}
            | ({"reference": asked.references[0]} if asked.references else {})
            for i, (asked, answer) in enumerate(zip(self.prompts, answers, strict=True))
        ]

    def finish(self) -> dict[str, Any]:
        recipe, recorder = self.parts.recipe, self.parts.recorder
        after, before = self._kept("validation"), self._kept("before")
        assert after is not None
        samples, seed = recipe.evaluation.bootstrap_samples, recipe.training.seed
        intervals = {k: v for part in after.scores for k, v in texts.intervals(part, samples, seed).items()}
        body = {
            "kind": "text",
            "num_rows": len(self.parts.tokens.validation),
            "answered_rows": len(self.asked),
            "metrics": _metrics(after.scores),
            "intervals": {name: [i.low, i.high] for name, i in intervals.items()},
            "notes": [note for part in after.scores for note in part.notes],
        }
        recorder.write("evaluation.json", json.dumps(body, ensure_ascii=False))
        recorder.write_rows("predictions/validation.jsonl", self._predictions(after, before))
        comparison = None if before is None else self._comparison(before.scores, after.scores, samples, seed)
        return {
            "metrics": body["metrics"],
            "intervals": body["intervals"],
            "baseline": {},
            "comparison": comparison,
            "forgetting": self.retaining.forgotten(),
        }

    # ---- rows and prompts ----

    def _asked(self, rows: np.ndarray) -> list[Asked]:
        return [
            Asked(row.where, _readable(self.encoder, row), self._prompt_ids(row), self.encoder.format.references(row))
            for row in _rows(self.source, rows)
        ]

    def _prompt_ids(self, row: Row) -> list[int]:
        """With as much room for the answer as `predict` leaves."""
        room = self.encoder.room_for(self.sampling.max_new_tokens, context_length(self.parts.forward.config))
        return self.encoder.prompt_ids(row, room=room)

    def _own_prompt(self, text: str, number: int) -> Asked:
        row = self.encoder.format.row(text, "evaluation.prompts", number)
        return Asked(row.where, text, self._prompt_ids(row))

    def _beginnings(self, rows: np.ndarray) -> list[Asked]:
        """First words of plain texts, to be continued."""
        found = []
        for row in _rows(self.source, rows):
            text = "".join(segment.text for segment in self.encoder.segments(row))
            words = text.split()
            beginning = " ".join(words[: max(1, min(12, len(words) // 2))])
            found.append(self._own_prompt(beginning, row.number))
        return found

    # ---- answers ----

    def _written(self, asked: list[Asked]) -> list[Answer]:
        if not asked:
            return []
        parts = self.parts
        found = generate(
            parts.forward.model,
            [one.ids for one in asked],
            self.sampling,
            on_token=lambda _row, _token: parts.stop_if_asked(),
            tokenizer=parts.tokenizer,
            precision=parts.forward.precision,
        )
        return [Answer(self.encoder.text(one.ids), one.stopped) for one in found]

    def _scores(self, found: Likelihoods, answers: list[Answer]) -> list[TextScores]:
        """Of the rows that were answered, where there are some, and of all rows."""
        likelihoods = score_likelihoods(found.nats, found.tokens, found.hits)
        pairs = [(a, one) for a, one in zip(answers, self.asked, strict=True) if one.references] if answers else []
        if not pairs:
            return [likelihoods]
        written = score_texts(
            [a.text for a, _ in pairs], [one.references for _, one in pairs], [a.stopped != "length" for a, _ in pairs]
        )
        return [written, likelihoods]

    def _kept(self, name: str) -> Kept | None:
        folder = self.parts.recorder.folder / "predictions"
        path = folder / f"{name}-likelihoods.safetensors"
        if not path.exists():
            return None
        found = Likelihoods(**{key: tensor.numpy() for key, tensor in load_file(path).items()})
        answers = [Answer(row["text"], row["stopped"]) for row in read_jsonl(folder / f"{name}-answers.jsonl")]
        return Kept(found, answers, self._scores(found, answers))

    def _comparison(self, before: list[TextScores], after: list[TextScores], samples: int, seed: int) -> dict[str, Any]:
        pairs = zip(before, after, strict=True)
        paired = {k: v for old, new in pairs for k, v in texts.paired(old, new, samples, seed).items()}
        return {
            "before": _metrics(before),
            "after": _metrics(after),
            "paired": {
                name: {
                    "fixed": one.fixed,
                    "broke": one.broke,
                    "p_value": one.p_value,
                    "difference": one.difference,
                    "interval": [one.interval.low, one.interval.high],
                }
                for name, one in paired.items()
            },
        }

    def _predictions(self, after: Kept, before: Kept | None) -> Iterator[dict[str, Any]]:
        earlier = before.answers if before and before.answers else [None] * len(after.answers)
        for asked, now, then in zip(self.asked, after.answers, earlier, strict=True):
            yield {
                "row": asked.where,
                "prompt": asked.prompt,
                "references": list(asked.references),
                "prediction": now.text,
                "stopped": now.stopped,
                "before": then.text if then else None,
            }


@dataclass(frozen=True)
class Answer:
    """An answer."""

    text: str
    stopped: str  # eos, stop, length

    def to_json(self) -> dict[str, str]:
        return {"text": self.text, "stopped": self.stopped}


@dataclass(frozen=True)
class Kept:
    """What was put on disk of one model."""

    found: Likelihoods
    answers: list[Answer]
    scores: list[TextScores]


def _metrics(parts: list[TextScores]) -> dict[str, float]:
    return {name: value for part in parts for name, value in part.metrics.items()}


def _greedy(encoder: RowEncoder, max_new_tokens: int | str) -> Sampling:
    assert isinstance(max_new_tokens, int)
    return Sampling(max_new_tokens=max_new_tokens, eos_ids=encoder.encoder.ends, stop=encoder.stop)


def _rows(source: Source, rows: np.ndarray) -> list[Row]:
    """These rows of a source, in its order, read no further than the last of them."""
    wanted = set(map(int, rows))
    last = max(wanted, default=-1)
    return [row for row in itertools.islice(source.rows(), last + 1) if row.number in wanted]


def _readable(encoder: RowEncoder, row: Row) -> str:
    """A prompt as text: what the template gives, or what the user said last."""
    read = encoder.format.prompt(row)
    if isinstance(read, tuple):
        return "".join(segment.text for segment in read).strip()
    return next((message.content for message in reversed(read.messages) if message.role == "user"), "")
