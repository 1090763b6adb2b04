"""Scores of a model that writes on any data of its format, for `evaluate RUN --data FILE`.

What `scoring` is for classifiers: load, read, answer, judge. The format is the model's, and with it the template, what
is learned and the accepted answers; so the scores are those that training would have given these rows.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from tunewright.data.examples import Source
from tunewright.data.row_reading import TextReading
from tunewright.data.sources import open_data
from tunewright.data.windows import masked_windows, windows
from tunewright.data.written_tokens import RowEncoder, WrittenDataset, tokenize_written
from tunewright.errors import DataError, UsageError
from tunewright.evaluation import texts
from tunewright.evaluation.statistics import Interval
from tunewright.evaluation.texts import TextScores, joined, score_likelihoods, score_texts
from tunewright.learning.masked_language_modeling import Masking, masked_likelihoods
from tunewright.learning.sequence_to_sequence import pair_likelihoods
from tunewright.models.likelihoods import Likelihoods, target_likelihoods
from tunewright.models.sampling import Sampling
from tunewright.serving.writer import BLOCK, Writer

MASK_SEED = 0  # of the words that are masked: the same for every model


@dataclass(frozen=True)
class TextJudgement:
    """How the model fares on N rows."""

    rows: int
    answered_rows: int  # those that have an accepted answer
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    notes: tuple[str, ...]


def score_writing(
    writer: Writer, data: str | Path, *, text: str | None = None, sampling: Sampling | None = None
) -> TextJudgement:
    """Likelihoods of every row, and answers to those with an accepted one. `text`: the column of a plain text.

    A folder's or a Hub dataset's validation part is taken, if it has one. Raises DataError naming a row.
    """
    splits = open_data(data)
    source = splits.validation or splits.train
    encoder = _encoder(writer, text)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        rows, found = _likelihoods(writer, encoder, source, Path(cache))
    answered, answers = _answers(writer, source, sampling)
    whole = joined(answers, found)
    return TextJudgement(rows, answered, whole.metrics, texts.intervals(answers) | texts.intervals(found), whole.notes)


def _encoder(writer: Writer, text: str | None) -> RowEncoder:
    """The model's own; a plain text may stand in another column here."""
    if text is None:
        return writer.encoder
    if not isinstance(writer.format.reading, TextReading):
        raise UsageError("the columns are those of the model's format; --text is for models of plain text")
    return replace(writer.encoder, format=replace(writer.format, reading=TextReading(text)))


def _likelihoods(writer: Writer, encoder: RowEncoder, source: Source, cache: Path) -> tuple[int, TextScores]:
    """Rows, and their loss, perplexity and token accuracy. A plain text too long for the model is read in windows."""
    in_windows = isinstance(encoder.format.reading, TextReading) and writer.kind != "encoder-decoder"
    dataset = tokenize_written(source, encoder.without_limit() if in_windows else encoder, cache)
    found = _of_kind(writer, _windows(writer, dataset) if in_windows else dataset)
    if not found.tokens.sum():
        raise DataError("no row has anything to predict", where=source.name)
    return len(dataset), score_likelihoods(found.nats, found.tokens, found.hits)


def _windows(writer: Writer, dataset: WrittenDataset) -> WrittenDataset:
    encoder = writer.encoder.encoder
    if encoder.max_length is None:
        return dataset
    if writer.kind == "masked":
        return masked_windows(dataset, encoder.max_length, writer.tokenizer)
    return windows(dataset, encoder.max_length, encoder.lead[0] if encoder.lead else None)


def _of_kind(writer: Writer, dataset: WrittenDataset) -> Likelihoods:
    """Of the next token, of a whole answer, or of words that are masked, the same ones each time."""
    if writer.kind == "causal":
        return target_likelihoods(writer.forward, dataset)
    if writer.kind == "encoder-decoder":
        return pair_likelihoods(writer.forward, dataset)
    vocabulary = writer.model.get_input_embeddings().weight.shape[0]
    return masked_likelihoods(writer.forward, dataset, Masking.of(writer.tokenizer, vocabulary), seed=MASK_SEED)


def _answers(writer: Writer, source: Source, sampling: Sampling | None) -> tuple[int, TextScores]:
    """Rows with an accepted answer, and how the model's own answers to them fare."""
    form = writer.format
    if writer.kind == "masked":
        return 0, TextScores({}, {})
    predictions: list[str] = []
    references: list[tuple[str, ...]] = []
    stopped: list[bool] = []
    asked = ((row, accepted) for row in source.rows() if (accepted := form.references(row)))
    while chunk := list(itertools.islice(asked, BLOCK)):
        ids = [writer.prompt(row, sampling).ids for row, _ in chunk]
        answers = writer.write(ids, sampling, numbers=[row.number for row, _ in chunk])
        predictions += [answer.prediction for answer in answers]
        stopped += [answer.stopped != "length" for answer in answers]
        references += [accepted for _, accepted in chunk]
    return len(predictions), score_texts(predictions, references, stopped)
