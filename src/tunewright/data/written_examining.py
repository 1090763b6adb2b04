"""The whole examination of rows that are to be written, behind `tunewright data check --task generate | continue`.

    sources -recognise-> format -gather-> arrays -> empty answers, duplicates, conflicts, leaks, what is cut -> report

What `examining` is for labelled texts. Two passes: one that reads and tokenises all rows, one that cuts those which are
too long, exactly as a run will. Nothing is changed here; `repairing` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from tunewright.data import written_questions
from tunewright.data.asking import Asked
from tunewright.data.columns import Columns, find_columns
from tunewright.data.encoding import Encoder, chunks
from tunewright.data.examining import Examined, Tokens, in_order, open_parts, part_reports
from tunewright.data.examples import Row
from tunewright.data.findings import DataReport, Finding, LengthReport, Part, Spread, WrittenLengths
from tunewright.data.gathering import Gathered
from tunewright.data.lenient import LenientSource, Record
from tunewright.data.reading import FileSource
from tunewright.data.row_reading import TemplateReading, TextReading
from tunewright.data.segments import Segments
from tunewright.data.written import Format, recognise
from tunewright.data.written_gathering import exchange_of, gather_written
from tunewright.data.written_tokens import RowEncoder
from tunewright.errors import RecipeError
from tunewright.recipe import Recipe


def examine_written(
    recipe: Recipe,
    tokens: Tokens | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
    said: tuple[str, ...] = (),
) -> Examined:
    """Examine the data of a recipe whose task writes. DataError, RecipeError where there is nothing to report on.

    `said`: what was decided before, put before what is recognised.
    """
    source, held_out_source = open_parts(recipe.data)
    form = format_of(recipe, source)
    encoder = RowEncoder.of(form, tokens.tokenizer) if tokens else None
    seen: set[int] = set()
    train = gather_written(source, form, encoder, seen=seen, on_rows=on_rows)
    validation = None
    if held_out_source is not None:
        validation = gather_written(held_out_source, form, encoder, seen=seen, on_rows=on_rows)
    sizes = _Sizes.of(recipe, tokens, form, encoder, train)
    train, written = sizes.of_part("train", train, source, {})
    if validation is not None and held_out_source is not None:
        validation, written = sizes.of_part("validation", validation, held_out_source, written)
    lengths = _length_reports(train, validation, sizes, recipe)
    asked = Asked(
        source, held_out_source, Columns(", ".join(form.reading.columns), None), None, train, validation,
        recipe.data, recipe.training.seed, lengths, _quoting(form),
    )  # fmt: skip
    as_given = isinstance(form.reading, TemplateReading) and form.reading.template.as_given
    found = written_questions.ask_written(asked, written, sizes.max_length, as_given=as_given)
    findings = [*found, *_no_end(encoder, form)]
    report = DataReport(
        train_name=source.name,
        text_column=asked.columns.text,
        label_column=None,
        kind="text",
        said=(*said, *(encoder.said if encoder else form.said)),
        parts=part_reports(train, validation, None),
        lengths=lengths,
        length_reason=sizes.reason,
        findings=in_order(_repairs_where_possible(findings, source)),
        looked_for=written_questions.looked_for(asked, cuts=encoder is not None),
        held_out=asked.num_held_out,
        task=recipe.task,
        format=form.name,
        learn=form.learn,
        written=written,
    )
    cutting = encoder if sizes.whole else sizes.encoder or encoder
    return Examined(report, asked.columns, None, source, train, validation, _text_columns(form), cutting)


def format_of(recipe: Recipe, source: LenientSource) -> Format:
    """How a run would read these rows. DataError, RecipeError."""
    data = recipe.data
    if recipe.task == "continue" and data.text != "auto":
        column = find_columns(source, data.text, need_label=False).text
        return Format("plain text", (f"format: plain text ({column})",), TextReading(column), "all")
    form = recognise(
        source,
        template=data.template,
        completion=data.completion,
        references=data.references,
        learn=None if data.learn == "auto" else data.learn,
    )
    if recipe.task == "continue" and form.name != "plain text":
        says = f"task continue learns from plain text, and these rows are {form.name}"
        raise RecipeError(f"{says}; name the column of the text, or use task generate.", field="data.text")
    return form


def _text_columns(form: Format) -> tuple[str, ...]:
    """Columns that hold texts as they are; messages lie deeper."""
    if form.talks:
        return ()
    own = (form.reading.template.completion,) if isinstance(form.reading, TemplateReading) else ()
    return (*form.reading.columns, *own)


def _quoting(form: Format) -> Callable[[Row], tuple[str, str]]:
    """What is shown of a row: the last thing before the answer, and the answer."""

    def quote(row: Row) -> tuple[str, str]:
        exchange = exchange_of(Record(row.number, 0, row), row, form)
        return (exchange.asked, exchange.answer) if exchange.asked else (exchange.answer, "")

    return quote


def _no_end(encoder: RowEncoder | None, form: Format) -> list[Finding]:
    if encoder is None or encoder.encoder.eos is not None or form.name == "plain text":
        return []
    sentence = "this model's tokenizer has no end-of-text token, so it can't learn to stop"
    return [Finding("no_end", "warning", "train", 1, sentence)]


def _repairs_where_possible(findings: list[Finding], source: LenientSource) -> list[Finding]:
    if isinstance(source.source, FileSource):
        return findings
    return [replace(finding, repair="") for finding in findings]


# ---- how long rows are, and what is cut of them ----


@dataclass(frozen=True)
class _Sizes:
    """max_length, and what it does to a part."""

    max_length: int | None  # None without a tokenizer
    reason: str
    form: Format
    encoder: RowEncoder | None  # cuts to max_length
    whole: bool  # documents become windows, and nothing is cut

    @classmethod
    def of(
        cls, recipe: Recipe, tokens: Tokens | None, form: Format, encoder: RowEncoder | None, train: Gathered
    ) -> _Sizes:
        whole = recipe.task == "continue"
        if tokens is None or encoder is None or not len(train.tokens):
            return cls(None, "", form, None, whole)
        max_length, reason = tokens.decide_length(train.tokens, "text")
        cutting = RowEncoder.of(form, tokens.tokenizer, max_length, recipe.data.truncate)
        return cls(max_length, reason, form, cutting, whole)

    def of_part(
        self, part: Part, found: Gathered, source: LenientSource, so_far: dict[Part, WrittenLengths]
    ) -> tuple[Gathered, dict[Part, WrittenLengths]]:
        """The part with the lines of cut answers, and its lengths beside those of other parts."""
        if self.max_length is None or self.encoder is None or found.exchanges is None or not len(found.tokens):
            return found, so_far
        nothing = np.zeros(len(found.tokens), np.int32)
        cut = (nothing, nothing) if self.whole else _cut(source, found, self.form, self.encoder, self.max_length)
        context, target = cut
        of = WrittenLengths(
            contexts=Spread.of(found.tokens - found.exchanges.targets),
            targets=Spread.of(found.exchanges.targets),
            context_cut=int(context.sum()),
            target_cut=int(target.sum()),
            cut_rows=int(((context + target) > 0).sum()),
            target_cut_rows=int((target > 0).sum()),
            windows=_num_windows(found.tokens, self.max_length, self.encoder) if self.whole else None,
        )
        marked = {**found.lines_of, "target_cut": found.lines[target > 0]}
        return replace(found, lines_of=marked), {**so_far, part: of}


def _cut(
    source: LenientSource, found: Gathered, form: Format, encoder: RowEncoder, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that each usable row loses before and inside what is learnt: int32 [N] twice."""
    context, target = np.zeros(len(found.tokens), np.int32), np.zeros(len(found.tokens), np.int32)
    long = np.flatnonzero(found.tokens > max_length)
    wanted = {int(found.survey.rows[index]): int(index) for index in long}

    def rows() -> Iterator[tuple[int, Segments]]:
        for record in source.records() if wanted else ():
            if record.position in wanted and record.row is not None:
                exchange = exchange_of(record, record.row, form, encoder)
                yield wanted[record.position], exchange.segments or ()

    for chunk in chunks(rows(), lambda pair: sum(len(segment.text) for segment in pair[1])):
        encoded = encoder.encoder.encode_all([segments for _, segments in chunk], [""] * len(chunk))
        for (index, _), tokens in zip(chunk, encoded, strict=True):
            context[index], target[index] = tokens.context_cut, tokens.target_cut
    return context, target


def _num_windows(lengths: np.ndarray, max_length: int, encoder: RowEncoder) -> int:
    """Pieces of at most max_length tokens, as `windows` cuts them."""
    around = Encoder.of(encoder.encoder.tokenizer)
    if around.suffix:  # an encoder: special tokens stand around every piece
        room = max(1, max_length - len(around.prefix) - len(around.suffix))
        return int((-(-np.maximum(lengths, 1) // room)).sum())
    step = max(1, max_length - 1 - len(encoder.encoder.bos))
    return int((1 + np.maximum(0, -((max_length - lengths.astype(np.int64)) // step))).sum())


def _length_reports(
    train: Gathered, validation: Gathered | None, sizes: _Sizes, recipe: Recipe
) -> dict[Part, LengthReport]:
    parts: dict[Part, Gathered] = {"train": train}
    if validation is not None:
        parts["validation"] = validation
    if sizes.max_length is None:
        return {}
    return {
        part: LengthReport.of(of.tokens, of.unknown_tokens, sizes.max_length, recipe.data.truncate)
        for part, of in parts.items()
        if len(of.tokens)
    }
