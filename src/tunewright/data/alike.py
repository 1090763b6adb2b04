"""The questions of `data check` about equal and nearly equal texts: repeated, contradicting, on both sides of a split.

Called by `questions`; `near_duplicates` and `splitting` find, this file says what it means for a run.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tunewright.data.asking import NUM_EXAMPLES, Asked, Draft, Quotes, num_rows
from tunewright.data.checking import conflicting
from tunewright.data.findings import percent
from tunewright.data.near_duplicates import Texts, near_matches, sketch
from tunewright.data.splitting import first_of_each, leaks


def duplicates(asked: Asked) -> Iterator[Draft]:
    survey = asked.train.survey
    first = first_of_each(survey.text_hashes)
    if repeated := len(survey) - len(first):
        rows = np.delete(asked.train.lines, first)
        later = np.delete(np.arange(len(survey)), first)[:NUM_EXAMPLES].tolist()
        quotes: Quotes = [
            [("train", int(np.argmax(survey.text_hashes == survey.text_hashes[i]))), ("train", i)] for i in later
        ]
        sentence = f"{num_rows(repeated)} ({percent(repeated / len(survey))}) with {asked.whole} seen before"
        yield Draft("duplicates", "warning", "train", repeated, sentence, rows, "all but the first left out", quotes)


def conflicts(asked: Asked) -> Iterator[Draft]:
    survey = asked.train.survey
    if asked.labels is None or asked.labels.kind == "number":
        return
    if groups := conflicting(survey.text_hashes, survey.label_keys):
        rows = np.concatenate(groups)
        which = "1 text has" if len(groups) == 1 else f"{len(groups):,} texts have"
        sentence = f"{which} more than one label ({num_rows(len(rows))}); at best one of them is right"
        quotes: Quotes = [
            [("train", i) for i in _two_labels(group, survey.label_keys)] for group in groups[:NUM_EXAMPLES]
        ]
        yield Draft("conflicts", "warning", "train", len(groups), sentence, asked.train.lines[rows],
                     "all of these rows left out", quotes)  # fmt: skip


def near_duplicates(asked: Asked) -> Iterator[Draft]:
    survey, once = asked.train.survey, asked.texts.rows
    groups = asked.groups
    later = once[groups[once] != once]
    if not len(later):
        return
    sentence = f"{num_rows(len(later))} ({percent(len(later) / len(survey))}) nearly the same as an earlier row"
    quotes: Quotes = [[("train", int(groups[i])), ("train", i)] for i in later[:NUM_EXAMPLES].tolist()]
    yield Draft("near_duplicates", "note", "train", len(later), sentence, asked.train.lines[later], "", quotes)
    if asked.keys is None:
        return
    exact = {int(groups[rows[0]]) for rows in conflicting(survey.text_hashes, asked.keys)}
    differing = [rows for rows in conflicting(groups, asked.keys) if int(groups[rows[0]]) not in exact]
    if differing:
        rows = np.concatenate(differing)
        which = "1 group" if len(differing) == 1 else f"{len(differing):,} groups"
        sentence = (
            f"{which} of nearly equal texts with more than one label ({num_rows(len(rows))}); look at these first"
        )
        quotes: Quotes = [[("train", i) for i in _two_labels(group, asked.keys)] for group in differing[:NUM_EXAMPLES]]
        yield Draft("near_conflicts", "warning", "train", len(differing), sentence, asked.train.lines[rows], "", quotes)


def _two_labels(rows: np.ndarray, keys: np.ndarray) -> list[int]:
    """The first row of a group, and the first whose label differs from its."""
    return [int(rows[0]), int(rows[np.argmax(keys[rows] != keys[rows[0]])])]


def leaked(asked: Asked) -> Iterator[Draft]:
    if asked.validation is None:
        return
    here, there = asked.train.one_side, asked.validation.one_side
    leaked = leaks(here, there)
    if len(leaked):
        what = "text" if asked.train.exchanges is None else "prompt"
        share = percent(len(leaked) / len(there))
        sentence = f"{num_rows(len(leaked))} ({share}) with a {what} that is in train as well"
        quotes: Quotes = [
            [("validation", i), ("train", int(np.argmax(here == there[i])))] for i in leaked[:NUM_EXAMPLES].tolist()
        ]
        yield Draft("leaks", "warning", "validation", len(leaked), sentence, asked.validation.lines[leaked],
                     f"these {what}s left out of train", quotes)  # fmt: skip


def near_leaks(asked: Asked) -> Iterator[Draft]:
    if asked.validation is None or not len(asked.validation.survey) or not len(asked.train.survey):
        return
    survey = asked.validation.survey
    fresh = np.setdiff1d(np.arange(len(survey)), leaks(asked.train.one_side, asked.validation.one_side))
    held_out = Texts(asked.validation.words, sketch(asked.validation.words), fresh)
    partner, _ = near_matches(asked.texts, held_out)
    near = np.flatnonzero(partner >= 0)
    if len(near):
        sentence = f"{num_rows(len(near))} ({percent(len(near) / len(survey))}) nearly the same as a row of train"
        quotes: Quotes = [
            [("validation", int(fresh[i])), ("train", int(partner[i]))] for i in near[:NUM_EXAMPLES].tolist()
        ]
        lines = asked.validation.lines[fresh[near]]
        yield Draft("near_leaks", "warning", "validation", len(near), sentence, lines, "", quotes)


def held_out_near_leaks(asked: Asked) -> Iterator[Draft]:
    """Near duplicates across the split that a run would make; equal texts never are."""
    if asked.split is None:
        return
    train, held_out = asked.split
    sketches = asked.texts.sketches
    trains = Texts(asked.train.words, sketches, np.intersect1d(train, asked.texts.rows))
    partner, _ = near_matches(trains, Texts(asked.train.words, sketches, held_out))
    near = np.flatnonzero(partner >= 0)
    if len(near):
        sentence = (
            f"{len(near):,} of the {len(held_out):,} rows that a run would hold out "
            f"({percent(len(near) / len(held_out))}) are nearly the same as a row it trains on: scores would flatter"
        )
        quotes: Quotes = [
            [("train", int(held_out[i])), ("train", int(partner[i]))] for i in near[:NUM_EXAMPLES].tolist()
        ]
        lines = asked.train.lines[held_out[near]]
        yield Draft("held_out_near_leaks", "warning", "train", len(near), sentence, lines, "", quotes)
