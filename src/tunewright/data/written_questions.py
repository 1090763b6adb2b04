"""The questions that `data check` puts to rows that are to be written: one function each, arrays in, findings out.

What `questions` is for labelled texts, and it lends what both share. An answer that stands in the prompt is no
giveaway here: that is what questions about a passage are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tunewright.data import alike
from tunewright.data.asking import NUM_EXAMPLES, Asked, Draft, Quotes, num_rows, quoted
from tunewright.data.findings import Finding, Part, WrittenLengths, excerpt, percent
from tunewright.data.gathering import Exchanges
from tunewright.data.questions import MAJORITY, characters, records, unknown_tokens

MANY_CUT = 0.2  # share of rows that lose something


def ask_written(
    asked: Asked, lengths: dict[Part, WrittenLengths], max_length: int | None, *, as_given: bool
) -> list[Finding]:
    """Every question, in the order in which a person cares. `as_given`: control tokens in the rows count as such."""
    parts: tuple[Part, ...] = ("train", "validation") if asked.validation is not None else ("train",)
    drafts: list[Draft] = []
    for part in parts:
        drafts += [*records(asked, part), *_without_target(asked, part), *characters(asked, part)]
        drafts += _control_tokens(asked, part, as_given)
    drafts += [*_hopeless(asked), *_one_answer(asked)]
    drafts += [*alike.duplicates(asked), *_conflicts(asked), *alike.near_duplicates(asked)]
    drafts += [*alike.leaked(asked), *alike.near_leaks(asked), *alike.held_out_near_leaks(asked)]
    for part, of in lengths.items():
        drafts += _cuts(asked, part, of, max_length)
    return quoted(asked, [*drafts, *unknown_tokens(asked)])


def looked_for(asked: Asked, cuts: bool) -> dict[str, tuple[str, ...]]:
    """The checks that were made, in words, with the codes of their findings."""
    both = asked.validation is not None
    talks = exchanges_of(asked, "train").commonest != ""
    checks: dict[str, tuple[str, ...]] = {
        "unreadable rows": ("rejected", "hopeless"),
        "rows with nothing to learn": ("no_target",),
        "odd encodings": ("encoding", "garbled", "replaced", "bom"),
        "exact duplicates": ("duplicates",),
        "near duplicates": ("near_duplicates",),
    }
    if talks:
        checks |= {"equal prompts with different answers": ("conflicts",), "answers all alike": ("one_answer",)}
    if both:
        checks |= {f"{'prompts' if talks else 'texts'} of validation that are in train": ("leaks", "near_leaks")}
    else:
        checks |= {"near leaks into the rows held out": ("held_out_near_leaks",)}
    if cuts:
        checks |= {"answers cut off": ("answers_cut", "many_cut"), "control tokens in the text": ("control_tokens",)}
    return checks


def exchanges_of(asked: Asked, part: Part) -> Exchanges:
    """What is known of prompts and answers."""
    found = asked.part(part).exchanges
    assert found is not None
    return found


def _without_target(asked: Asked, part: Part) -> Iterator[Draft]:
    found = asked.part(part)
    if len(empty := found.at("empty")):
        what = "with nothing to learn: what must be written is missing or empty; a run refuses them"
        sentence = f"{num_rows(len(empty))} {what}"
        yield Draft("no_target", "unusable", part, len(empty), sentence, empty, "left out" if part == "train" else "")


def _control_tokens(asked: Asked, part: Part, as_given: bool) -> Iterator[Draft]:
    if len(lines := exchanges_of(asked, part).lines_with_controls):
        how = "it counts as such" if as_given else "it is read as plain text"
        sentence = f"{num_rows(len(lines))} with the name of a control token of this model; {how}"
        yield Draft("control_tokens", "note", part, len(lines), sentence, lines)


def _hopeless(asked: Asked) -> Iterator[Draft]:
    num_train = len(asked.train.survey)
    if num_train < 2:
        sentence = f"{num_rows(num_train)} can be used; expected at least 2"
        yield Draft("hopeless", "unusable", "train", 1, sentence)
    elif asked.validation is None and asked.split is None:
        what = "prompts" if exchanges_of(asked, "train").commonest else "texts"
        sentence = f"too few different {what} to hold some out for validation; add rows, or name a validation file"
        yield Draft("hopeless", "unusable", "train", 1, sentence)
    if asked.validation is not None and not len(asked.validation.survey):
        yield Draft("hopeless", "unusable", "validation", 1, "no row can be used; expected at least one")


def _one_answer(asked: Asked) -> Iterator[Draft]:
    """Whoever always says the same would be right."""
    exchanges = exchanges_of(asked, "train")
    if len(exchanges.answers) < 2 or not exchanges.commonest:
        return
    _, counts = np.unique(exchanges.answers, return_counts=True)
    if (most := int(counts.max())) >= MAJORITY * len(exchanges.answers):
        share = (
            "every answer is" if most == len(exchanges.answers) else f"{percent(most / counts.sum())} of answers are"
        )
        sentence = f'{share} "{excerpt(exchanges.commonest)}": a model that always says so learns nothing else'
        yield Draft("one_answer", "warning", "train", most, sentence)


def _conflicts(asked: Asked) -> Iterator[Draft]:
    """Equal prompts with different answers: a matter of taste in stories, a mistake in facts."""
    exchanges = exchanges_of(asked, "train")
    if not exchanges.commonest:
        return
    order = np.argsort(exchanges.prompts, kind="stable")
    begins = np.flatnonzero(np.diff(exchanges.prompts[order])) + 1
    groups = [rows for rows in np.split(order, begins) if len(rows) > 1]
    several = [rows for rows in groups if (exchanges.answers[rows] != exchanges.answers[rows[0]]).any()]
    if not several:
        return
    several.sort(key=lambda rows: int(rows[0]))
    rows = np.concatenate(several)
    which = "1 prompt has" if len(several) == 1 else f"{len(several):,} prompts have"
    sentence = f"{which} more than one answer ({num_rows(len(rows))}); the model learns a mixture of them"
    quotes: Quotes = [[("train", i) for i in _two_answers(group, exchanges)] for group in several[:NUM_EXAMPLES]]
    yield Draft("conflicts", "warning", "train", len(several), sentence, asked.train.lines[rows], "", quotes)


def _two_answers(rows: np.ndarray, exchanges: Exchanges) -> list[int]:
    """The first row of a prompt, and the first that answers it otherwise."""
    answers = exchanges.answers[rows]
    return [int(rows[0]), int(rows[np.argmax(answers != answers[0])])]


def _cuts(asked: Asked, part: Part, of: WrittenLengths, max_length: int | None) -> Iterator[Draft]:
    kept = f"max_length {max_length:,}" if max_length is not None else "max_length"
    num = len(asked.part(part).survey)
    if of.target_cut_rows:
        lines = asked.part(part).lines_of.get("target_cut", np.zeros(0, np.int64))
        sentence = (
            f"{num_rows(of.target_cut_rows)} whose answer is cut to fit {kept} ({of.target_cut:,} tokens of what must "
            "be learnt): such an answer teaches no end"
        )
        yield Draft("answers_cut", "warning", part, of.target_cut_rows, sentence, lines)
    if of.cut_rows >= MANY_CUT * num:
        sentence = (
            f"{percent(of.cut_rows / num)} of the rows are cut to fit {kept} ({of.context_cut:,} tokens of prompts); "
            "a larger data.max_length keeps them, at the price of time"
        )
        yield Draft("many_cut", "warning", part, of.cut_rows, sentence)
