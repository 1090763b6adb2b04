"""Draws completions for people to rank: prompts into a store of judgements, then K answers of each model to each.

All models answer what one of them was tuned to read: the first that kept a format makes the prompts, and a base without
one gets the same. Every draw is known by prompt, model, settings and number, and its text hangs on these alone, so that
a start after an interruption draws only what is missing. `rank sample` calls this; people judge on the page.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunewright.data.examples import Row, Source
from tunewright.data.judgement_import import said
from tunewright.data.judgement_records import Said
from tunewright.data.judgements import Judgements
from tunewright.data.pairs_tokens import pair_rows
from tunewright.data.prompts import prompt_format
from tunewright.data.row_reading import TemplateReading, answers_of
from tunewright.data.templates import value_text
from tunewright.data.written import Format, kept_in, recognise
from tunewright.data.written_tokens import RowEncoder
from tunewright.errors import DataError, UsageError
from tunewright.models.sampling import Sampling
from tunewright.serving.writer import Writer

BLOCK = 32  # completions that are drawn, then kept together; an interruption loses at most these
HUMAN = "human"  # the origin of what stands in the file itself


@dataclass(frozen=True)
class Asked:
    """The prompts of a file, in the store."""

    form: Format  # how its rows are read
    prompts: tuple[tuple[str, Row], ...]  # id in the store, row

    @property
    def said(self) -> tuple[str, ...]:
        """What was recognised."""
        return self.form.said


@dataclass
class Drawn:
    """What one origin brought."""

    drawn: int = 0  # completions that are new draws
    known: int = 0  # draws that were here already
    repeated: int = 0  # of the new ones: word for word what a prompt had
    empty: int = 0  # said nothing, and weren't kept
    cut: int = 0  # prompts that were too long for the model


def ask(
    store: Judgements,
    source: Source,
    *,
    template: str | None = None,
    completion: str | None = None,
    kept: Format | None = None,
    limit: int | None = None,
) -> Asked:
    """Put the prompts of a source into the store. `kept`: the format of the models, where one kept it.

    `template` is that of a prompt, unless `completion` names the column that it ends in. Equal prompts are one. Raises
    DataError naming the row, RecipeError for a template that can't be.
    """
    form = _format(source, template, completion, kept)
    prompts: dict[str, Row] = {}
    with store.together():
        for row in itertools.islice(source.rows(), limit):
            id = store.add_prompt(said(form.prompt(row)), row.where, values=row.values)
            prompts.setdefault(id, row)
    return Asked(form, tuple(prompts.items()))


def _format(source: Source, template: str | None, completion: str | None, kept: Format | None) -> Format:
    """As the models were tuned, else as training would read the rows, else the column of prompts."""
    if completion is not None:
        return recognise(source, template=template, completion=completion)
    if template is None and kept is None:
        with contextlib.suppress(DataError):  # rows without completions, or comparisons
            return recognise(source)
    return prompt_format(source, template, kept)


def kept_format(folder: Path) -> Format | None:
    """The format in a model's folder."""
    return kept_in(folder)[0]


# ---- models ----


def draw(
    store: Judgements,
    writer: Writer,
    origin: str,
    asked: Asked,
    count: int,
    sampling: Mapping[str, Any],
    on_block: Callable[[int, int], None] = lambda done, total: None,
) -> Drawn:
    """`count` completions of every prompt by one model; `sampling` as for `Sampling`. `on_block(done, total)`.

    Raises UsageError for settings under which each draw would be the same.
    """
    reader = in_format(writer, asked.form)
    settings = reader.sampling(**sampling)
    if settings.is_greedy and count > 1:
        raise UsageError(
            "at temperature 0 every completion is the same; give a temperature, or -k 1", field="temperature"
        )
    found = Drawn()
    wanted = list(_missing(store, origin, asked, count, settings, found))
    for start in range(0, len(wanted), BLOCK):
        _block(store, reader, origin, wanted[start : start + BLOCK], settings, found)
        on_block(min(start + BLOCK, len(wanted)), len(wanted))
    return found


def in_format(writer: Writer, form: Format) -> Writer:
    """The model, asked in this format."""
    if writer.format.signature == form.signature:
        return writer
    inner = writer.encoder.encoder
    side = "left" if form.name == "plain text" else inner.truncate
    if writer.kind == "encoder-decoder":
        encoder = pair_rows(replace(form, learn="completion"), writer.tokenizer, inner.max_length, side)
    else:
        encoder = RowEncoder.of(form, writer.tokenizer, inner.max_length, side)
    return replace(writer, encoder=encoder)


@dataclass(frozen=True)
class _Draw:
    """One completion that is to be drawn."""

    prompt_id: str
    row: Row
    number: int
    settings: Mapping[str, Any]  # as the store keeps them


def _missing(
    store: Judgements, origin: str, asked: Asked, count: int, sampling: Sampling, found: Drawn
) -> Iterator[_Draw]:
    """All first draws, then all second ones: interrupted early, as many prompts as can be are of use."""
    common = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
    for number, (prompt_id, row) in itertools.product(range(count), asked.prompts):
        settings = {**common, "max_new_tokens": sampling.max_new_tokens, "draw": number}
        if store.has_drawn(prompt_id, origin, settings):
            found.known += 1
        else:
            yield _Draw(prompt_id, row, number, settings)


def _block(
    store: Judgements, reader: Writer, origin: str, draws: Sequence[_Draw], sampling: Sampling, found: Drawn
) -> None:
    prompts = [reader.prompt(one.row, sampling) for one in draws]
    found.cut += sum(prompt.cut > 0 for prompt in prompts)
    numbers = [(one.number << 64) + int(one.prompt_id, 16) for one in draws]  # what chance hangs on, beside the seed
    written = reader.write([prompt.ids for prompt in prompts], sampling, numbers=numbers)
    with store.together():
        for one, completion in zip(draws, written, strict=True):
            _keep(store, one.prompt_id, completion.prediction, origin, one.settings, found)


def _keep(store: Judgements, prompt_id: str, text: str, origin: str, settings: Mapping[str, Any], found: Drawn) -> None:
    if not text.strip():
        found.empty += 1
        return
    before = len(store.completions(prompt_id))
    store.add_completion(prompt_id, _as_the_prompt(store.prompt(prompt_id).text, text), origin, settings)
    found.drawn += 1
    found.repeated += len(store.completions(prompt_id)) == before


def _as_the_prompt(prompt: Said, text: str) -> Said:
    """An answer in a conversation is what the assistant says."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


# ---- people ----


def take(store: Judgements, asked: Asked, column: str | None = None) -> Drawn:
    """The completions that stand in the file: in a column, or where the format has them. Their origin is `human`."""
    found = Drawn()
    with store.together():
        for prompt_id, row in asked.prompts:
            for number, text in enumerate(_own(row, asked.form, column)):
                settings = {"draw": number}
                if store.has_drawn(prompt_id, HUMAN, settings):
                    found.known += 1
                else:
                    _keep(store, prompt_id, text, HUMAN, settings, found)
    if not found.drawn and not found.known:
        says = "the rows hold no completion of their own"
        raise DataError(f"{says}; name their column with human:COLUMN", where=_first_where(asked), field=column)
    return found


def _own(row: Row, form: Format, column: str | None) -> Iterable[str]:
    if column is not None:
        return (value_text(row, column),)
    if isinstance(form.reading, TemplateReading):
        return form.references(row)[:1]
    if "completion" in row.values:
        return answers_of(row, "completion")[:1]
    return ()


def _first_where(asked: Asked) -> str | None:
    return asked.prompts[0][1].where.rpartition(":")[0] if asked.prompts else None
