"""The questions that `data check` puts to what was gathered: one function each, arrays in, findings out.

`examining` gathers and reports; this file says what counts as wrong, how it is said, and which rows it is about;
`alike` does so for equal and nearly equal texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tunewright.data import alike, giveaways
from tunewright.data.asking import NUM_EXAMPLES, Asked, Draft, Quotes, counts, num_rows, quoted
from tunewright.data.checking import FEW_EXAMPLES, refuse_the_hopeless, small_classes
from tunewright.data.findings import Finding, Part, excerpt, percent
from tunewright.data.spellings import misspelt_labels, stray_labels
from tunewright.data.words import words_of
from tunewright.errors import DataError

MAJORITY = 0.9  # share of the largest class that is worth a word
UNKNOWN = 0.05  # share of tokens that the model doesn't know


def ask(asked: Asked) -> list[Finding]:
    """Every question, in the order in which a person cares."""
    drafts: list[Draft] = []
    for part in ("train", "validation") if asked.validation is not None else ("train",):
        drafts += [*records(asked, part), *_empty(asked, part), *characters(asked, part)]
    drafts += [*_hopeless(asked), *_classes(asked), *_spellings(asked)]
    drafts += [*alike.duplicates(asked), *alike.conflicts(asked), *alike.near_duplicates(asked)]
    drafts += [*alike.leaked(asked), *alike.near_leaks(asked), *alike.held_out_near_leaks(asked)]
    drafts += [*_giveaways(asked), *unknown_tokens(asked)]
    return quoted(asked, drafts)


def looked_for(asked: Asked) -> dict[str, tuple[str, ...]]:
    """The checks that were made, in words, with the codes of their findings, so that silence means something."""
    leaks = ("leaks", "near_leaks") if asked.validation is not None else ("held_out_near_leaks",)
    checks: dict[str, tuple[str, ...]] = {
        "unreadable rows": ("rejected",),
        "empty texts": ("empty",),
        "odd encodings": ("encoding", "garbled", "replaced", "bom"),
        "exact duplicates": ("duplicates",),
        "near duplicates": ("near_duplicates",),
        "leaks into validation" if asked.validation is not None else "near leaks into the rows held out": leaks,
    }
    if asked.keys is not None:
        checks |= {
            "conflicting labels": ("conflicts", "near_conflicts"),
            "small classes": ("small_classes", "unseen_classes", "hopeless"),
            "labels spelt two ways": ("label_spelling", "stray_label", "padded_labels"),
            "giveaways": ("giveaway_word", "giveaway_column"),
        }
    return checks


# ---- rows ----


def records(asked: Asked, part: Part) -> Iterator[Draft]:
    """Rows that can't be read."""
    found = asked.part(part)
    mends = part == "train"
    if len(rejected := found.at("rejected")):
        several = 1 if found.exchanges is None else 3  # there each is of another kind
        said = "; ".join(str(problem) for problem in found.problems[:several])
        which = num_rows(len(rejected))
        yield Draft(
            "rejected", "unusable", part, len(rejected), f"{which} can't be used. {said}", rejected,
            "left out" if mends and asked.source.has_lines else "",
        )  # fmt: skip
    if found.encoding != "utf-8":
        sentence = f"the file is {found.encoding.upper()}; a run reads UTF-8"
        yield Draft("encoding", "unusable", part, found.survey.num_rows, sentence, (), "written as UTF-8")
    if len(recoded := found.at("recoded")):
        sentence = f"{num_rows(len(recoded))} not in UTF-8, perhaps in Windows-1252"
        yield Draft("encoding", "unusable", part, len(recoded), sentence, recoded, "written as UTF-8" if mends else "")


def _empty(asked: Asked, part: Part) -> Iterator[Draft]:
    if len(empty := asked.part(part).at("empty")):
        sentence = f"{num_rows(len(empty))} left out, as the text is empty"
        yield Draft("empty", "warning", part, len(empty), sentence, empty, "left out" if part == "train" else "")


def characters(asked: Asked, part: Part) -> Iterator[Draft]:
    """Signs that nobody wrote."""
    found = asked.part(part)
    mends = part == "train"
    if len(garbled := found.at("garbled")):
        sentence = f"{num_rows(len(garbled))} with text that was decoded wrongly once (Ã© for é, â€™ for ’)"
        quotes: Quotes = [[(part, i)] for i in np.flatnonzero(np.isin(found.lines, garbled[:NUM_EXAMPLES])).tolist()]
        yield Draft("garbled", "warning", part, len(garbled), sentence, garbled, "put right" if mends else "", quotes)
    if len(replaced := found.at("replaced")):
        sentence = f"{num_rows(len(replaced))} with the replacement sign U+FFFD: characters were lost when it was saved"
        yield Draft("replaced", "warning", part, len(replaced), sentence, replaced)
    if len(padded := found.at("padded_label")):
        sentence = f"{num_rows(len(padded))} with spaces around the label; they count as the label without"
        yield Draft("padded_labels", "note", part, len(padded), sentence, padded, "trimmed" if mends else "")
    if found.has_bom and found.encoding == "utf-8":
        yield Draft("bom", "note", part, 1, "the file begins with a byte-order mark", (), "removed" if mends else "")


# ---- labels ----


def _hopeless(asked: Asked) -> Iterator[Draft]:
    if asked.labels is not None:
        try:
            refuse_the_hopeless(asked.train.survey, asked.labels)
        except DataError as error:
            yield Draft("hopeless", "unusable", "train", 1, error.message)
    if asked.validation is not None and not len(asked.validation.survey):
        yield Draft("hopeless", "unusable", "validation", 1, "no row can be used; expected at least one")
    if asked.validation is None and asked.split is None and len(asked.train.survey) >= 2:
        sentence = "too few different texts to hold some out for validation; add rows, or name a validation file"
        yield Draft("hopeless", "unusable", "train", 1, sentence)


def _classes(asked: Asked) -> Iterator[Draft]:
    here = counts(asked.train, asked.labels)
    if few := small_classes(here):
        shown = ", ".join(f"{name} {count}" for name, count in list(few.items())[:6]) + (", …" if len(few) > 6 else "")
        which = "1 class has" if len(few) == 1 else f"{len(few):,} classes have"
        sentence = f"{which} fewer than {FEW_EXAMPLES} rows ({shown}): too few to learn or to judge"
        yield Draft("small_classes", "warning", "train", len(few), sentence)
    if asked.keys is not None and len(here) > 1 and max(here.values()) >= MAJORITY * sum(here.values()):
        name = max(here, key=lambda each: here[each])
        share = here[name] / sum(here.values())
        sentence = f'{percent(share)} of the rows are "{name}": whoever always says so is right as often; mind macro F1'
        yield Draft("majority", "note", "train", here[name], sentence)
    if asked.validation is not None:
        there = counts(asked.validation, asked.labels)
        if unseen := [name for name, count in there.items() if count and not here[name]]:
            sentence = f"{', '.join(unseen)} occurs here but never in train, so it can't be learned"
            yield Draft("unseen_classes", "warning", "validation", len(unseen), sentence)


def _spellings(asked: Asked) -> Iterator[Draft]:
    observed = asked.train.survey.labels
    if asked.keys is None or asked.recipe.labels != "auto":
        return
    for rare, usual in misspelt_labels(observed.counts)[:5]:
        rows = asked.train.lines[asked.keys == observed.keys[(rare,)]]
        sentence = f'label "{rare}" ({num_rows(len(rows))}) is perhaps "{usual}" ({observed.counts[usual]:,})'
        yield Draft("label_spelling", "warning", "train", len(rows), sentence, rows)
    for stray in stray_labels(observed)[:5]:
        rows = asked.train.lines[asked.keys == observed.keys[(stray,)]]
        sentence = f'label "{stray}" is no number, nearly all others are; without it they would be numbers to predict'
        yield Draft("stray_label", "warning", "train", len(rows), sentence, rows)


# ---- what gives the label away ----


def _giveaways(asked: Asked) -> Iterator[Draft]:
    keys = asked.keys
    if keys is None:
        return
    for found in giveaways.word_giveaways(asked.train.words, asked.train.edges, keys)[:5]:
        name = asked.class_name(found.label_key)
        sentence = (
            f'stands in {percent(found.coverage)} of the rows of "{name}", and {percent(found.purity)} of the rows '
            "that have it are of that class. Is it a trace of how the data was made?"
        )
        yield Draft("giveaway_word", "warning", "train", found.num_rows, _with_word(found, sentence), (), "",
                     [[("train", found.row)]])  # fmt: skip
    how = {"value": "its value", "pattern": "its value without digits", "order": "its order"}
    for column in giveaways.column_giveaways(asked.train.columns, keys):
        sentence = (
            f'column "{column.column}" gives the label away ({how[column.how]} predicts {percent(column.accuracy)} '
            "of the rows). It isn't read; keep it out of the text"
        )
        yield Draft("giveaway_column", "note", "train", len(keys), sentence)
    if giveaways.is_sorted_by_label(keys):
        yield Draft("sorted", "note", "train", len(keys), "the rows are sorted by label; a run shuffles them")


def _with_word(found: giveaways.WordGiveaway, rest: str) -> Callable[[dict[int, str]], str]:
    def sentence(texts: dict[int, str]) -> str:
        if found.where != "word":
            return f'the sign "{chr(found.code)}" at the {found.where} of the text {rest}'
        word = next((w for w in words_of(texts[found.row]) if giveaways.code_of(w) == found.code), "?")
        return f'the word "{excerpt(word)}" {rest}'

    return sentence


def unknown_tokens(asked: Asked) -> Iterator[Draft]:
    """Tokens that the model doesn't know."""
    for part, report in asked.lengths.items():
        if report.unknown_tokens >= UNKNOWN * report.tokens:
            sentence = (
                f"{percent(report.unknown_tokens / report.tokens)} of the tokens are unknown to the model: "
                "is it made for this language?"
            )
            yield Draft("unknown_tokens", "warning", part, report.unknown_tokens, sentence)
