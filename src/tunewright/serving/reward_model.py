"""Using a reward model: prompts with completions in, one number each out, the better the higher.

Scores are differences of log-odds that people would prefer one completion to another of the same prompt; their zero is
the mean of the completions that people found best among the validation rows of the run (InstructGPT normalises its
reward model by its demonstrations alike). PPO rewards with them, `predict` writes them, `evaluate` compares them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.torch import load_file

from tunewright.data.comparison_reading import COMPLETION, ComparisonReading
from tunewright.data.comparison_tokens import tokenize_comparisons
from tunewright.data.comparisons import Comparisons, is_comparison, recognised
from tunewright.data.encoding import Side
from tunewright.data.examples import Row
from tunewright.data.scored_rows import ScoredRows
from tunewright.data.sources import open_data
from tunewright.data.survey import value_of
from tunewright.data.written import MAX_FILE_BYTES, Format, as_it_is, kept_in
from tunewright.errors import DataError, ModelError, UsageError
from tunewright.evaluation import preferences
from tunewright.evaluation.preferences import LengthRival, Scored
from tunewright.learning.preference import text_scores
from tunewright.learning.tensors import load_weights
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.loading import Loaded, load_saved
from tunewright.scanning.headers import check_headers
from tunewright.serving.predict import BLOCK, Prediction, Predictor, Seen, refuse_taken, which_device

REWARD = "reward.json"  # in a saved model's folder: it is a reward model, and this is its zero
VERSION = 1
SCORE = "score"  # the column that a row with a completion gets


@dataclass(frozen=True)
class Normalisation:
    """Where the zero of the scores is."""

    mean: float = 0.0  # of the reference completions; taken off every score
    std: float | None = None  # of the scores of all completions that were compared; None: not measured yet
    completions: int = 0  # how many the mean was taken of

    @classmethod
    def of(cls, reference: np.ndarray, every: np.ndarray) -> Normalisation:
        """From the scores of the reference completions, and of all."""
        return cls(float(reference.mean()), float(every.std()), len(reference))

    def to_json(self) -> dict[str, Any]:
        """As run.json has it."""
        return {**asdict(self), "of": "the completions that people found best among the validation rows"}

    def written(self) -> str:
        """As a file."""
        return json.dumps({"version": VERSION, **self.to_json()}, indent=2) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Normalisation:
        """From a saved model's folder. ModelError, naming the file, for anything that we didn't write."""
        path = folder / REWARD
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ValueError("it is larger than 1 MB")
            body = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(body, dict) or body.get("version") != VERSION:
                raise ValueError(f"expected version {VERSION}")
            mean, std, count = body.get("mean"), body.get("std"), body.get("completions")
            numbers = [value for value in (mean, std) if value is not None]
            if mean is None or not all(_is_number(value) for value in numbers):
                raise ValueError(f"mean is {mean!r:.40} and std {std!r:.40}; expected numbers")
            return cls(float(mean), None if std is None else float(std), count if isinstance(count, int) else 0)
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"the zero of the scores can't be read ({error!s:.200})", where=str(path)) from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class RewardModel:
    """A loaded reward model."""

    model: Any  # the plain transformers or PEFT object
    tokenizer: Any
    rows: ScoredRows
    forward: Forward
    normalisation: Normalisation

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto", *, weights: Path | None = None) -> RewardModel:
        """From a run's folder or its `model` folder; `weights`: a checkpoint folder of the same run, put on top.

        ModelError where it is none.
        """
        path = Path(folder)
        path = path / "model" if (path / "model" / REWARD).is_file() else path
        if not is_reward_model(path):
            says = f"this is no reward model (it has no {REWARD}); train one with task: reward"
            raise ModelError(says, where=str(folder))
        return cls.of(load_saved(path, which_device(device)), path, weights=weights)

    @classmethod
    def of(cls, loaded: Loaded, folder: Path, *, weights: Path | None = None) -> RewardModel:
        """What was loaded from this folder."""
        if loaded.labels is None or loaded.labels.kind != "number":
            raise ModelError("a reward model has one output, and this one has others", where=str(folder))
        if weights is not None:
            check_headers(weights)
            load_weights(loaded.model, load_file(weights / "weights.safetensors"))
        form, _ = kept_in(folder)
        rows = ScoredRows.of(form or as_it_is(), loaded.tokenizer, loaded.max_length, cast(Side, loaded.truncate))
        return cls(loaded.model, loaded.tokenizer, rows, Forward.checked(loaded.model), Normalisation.read(folder))

    @classmethod
    def load_untrained(cls, run_folder: Path, device: str = "auto") -> RewardModel:
        """The model of a run as it was before its first step, with no zero of its own."""
        base = Predictor.load_untrained(run_folder, device)
        form, _ = kept_in(run_folder / "model")
        rows = ScoredRows.of(form or as_it_is(), base.tokenizer, base.max_length, base.truncate)
        return cls(base.model, base.tokenizer, rows, base.forward, Normalisation())

    @property
    def format(self) -> Format:
        """How a prompt is read."""
        return self.rows.form

    def takes(self, values: Mapping[str, Any]) -> bool:
        """Whether a row has the columns of this model's prompts."""
        reading = self.format.reading
        return {name for name in reading.columns if name not in reading.optional} <= values.keys()

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> np.ndarray:
        """float64 [B]. A prompt is a text, a list of messages, or a row's columns; a completion a text or messages.

        Prompts that are too long lose their beginning (or end) as in training. UsageError for a text where the template
        reads several columns; ModelError where a score is no number.
        """
        pairs = enumerate(zip(prompts, completions, strict=True))
        return self.score_rows(
            [self.rows.row(prompt, completion, f"text {i + 1}", i) for i, (prompt, completion) in pairs]
        )

    def score_rows(self, rows: Sequence[Row]) -> np.ndarray:
        """float64 [B], of rows with the prompt's columns and `completion`. DataError naming the row."""
        if not rows:
            return np.zeros(0)
        ids = [tokens.ids for tokens in self.rows.encode(rows)]
        return self._normalised(predict_logits(self.forward, ids)[:, 0].astype(np.float64))

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Prediction]:
        """The same, of rows as plain values. UsageError for texts: a score is one of a prompt with its completion."""
        if any(not isinstance(row, Mapping) for row in rows):
            raise UsageError('a reward model scores rows with a prompt and a "completion", not single texts')
        given = [Row(row, f"row {number}", number - 1) for number, row in enumerate(rows, 1)]
        return [Prediction(float(score)) for score in self.score_rows(given)]

    def _normalised(self, scores: np.ndarray) -> np.ndarray:
        if not np.isfinite(scores).all():
            raise ModelError("the model scores NaN or infinity; its weights are damaged, or its training diverged")
        return scores - self.normalisation.mean

    # ---- files ----

    def stream(self, rows: Iterable[Row], block: int = BLOCK) -> Iterator[dict[str, Any]]:
        """Each row's own columns, then `score`; of comparisons, `chosen_score` and `rejected_score`, or `scores`.

        Raises DataError naming a row without a completion, or whose own columns the answer would replace.
        """
        remaining, reading = iter(rows), None
        while chunk := list(itertools.islice(remaining, block)):
            if COMPLETION not in chunk[0].values and is_comparison(chunk[0].values):
                reading = reading or recognised(Seen(chunk), form=self.format)[0]
            flat = [_completions(row, reading) for row in chunk]
            scores = iter(self.score_rows(list(itertools.chain.from_iterable(flat))).tolist())
            for row, own in zip(chunk, flat, strict=True):
                yield {**row.values, **_answer(list(itertools.islice(scores, len(own))), reading)}

    def judge(self, data: str | Path, *, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
        """How often it agrees with the comparisons of a file (its validation part, if it has one).

        Plain values, see `preferences.judge`. Raises DataError.
        """
        from tempfile import TemporaryDirectory

        splits = open_data(data)
        compared = Comparisons.of(splits.validation or splits.train, form=self.format)
        with TemporaryDirectory() as cache:
            dataset = tokenize_comparisons(compared, self.rows, Path(cache))
            scored = Scored.of(dataset, self._normalised(text_scores(self.forward, dataset)))
            # Nothing was learnt here, so the rival may not learn either: the longer one is better.
            return preferences.judge(scored, LengthRival(1.0), compared.annotators, samples, seed)


def is_reward_model(folder: Path) -> bool:
    """Whether a saved model's folder is one of a reward model."""
    return (folder / REWARD).is_file()


def _completions(row: Row, reading: ComparisonReading | None) -> list[Row]:
    """A row as one of each completion that it holds."""
    refuse_taken(row, list(_answer([0.0, 0.0], reading)))
    if reading is not None:
        judged = reading.read(row)
        return [Row({**judged.values, COMPLETION: text}, row.where, row.number) for text in judged.completions]
    if value_of(row, COMPLETION) is None:
        raise DataError(f'"{COMPLETION}" is null; expected a text to score', where=row.where, field=COMPLETION)
    return [row]


def _answer(scores: list[float], reading: ComparisonReading | None) -> dict[str, Any]:
    """The columns that a row gets."""
    if reading is None:
        return {SCORE: scores[0]}
    if reading.style == "ranked":
        return {f"{SCORE}s": scores}
    return {f"{name}_{SCORE}": score for name, score in zip(("chosen", "rejected"), scores, strict=True)}
