"""The quick check before the first step: what is wrong, or merely odd, with the data, in numbers.

Reads the surveys only, so it costs milliseconds. Stops what can't work (DataError); says what a person should know.
Unknown labels in validation are refused here, with the row, before anything is tokenised. `examining` is the whole
examination behind `data check`; it shares what decides here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tunewright.data.labels import LabelSpec, label_counts
from tunewright.data.splitting import first_of_each, leaks
from tunewright.data.survey import Survey
from tunewright.errors import DataError

FEW_EXAMPLES = 8


@dataclass(frozen=True)
class CheckReport:
    """What was found, as sentences with numbers; nothing here stops a run."""

    said: tuple[str, ...] = ()
    train_counts: dict[str, int] = field(default_factory=dict)  # class name -> rows, empty for numbers
    validation_counts: dict[str, int] = field(default_factory=dict)


def quick_check(train: Survey, validation: Survey | None, labels: LabelSpec) -> CheckReport:
    """Check both parts; `validation` is None while it is still a fraction of train."""
    refuse_the_hopeless(train, labels)
    counts = label_counts(train.labels, labels)
    said = [*_empties(train), *_duplicates(train), *_conflicts(train), *_small_classes(train, counts)]
    if validation is None:
        return CheckReport(tuple(said), counts)
    if not len(validation):
        raise DataError(
            f"no row of {_rows(validation.num_rows)} has a text; expected at least one.", where=validation.name
        )
    held_out = label_counts(validation.labels, labels)
    said += [*_empties(validation), *_leaks(train, validation), *_unseen_classes(validation, counts, held_out)]
    return CheckReport(tuple(said), counts, held_out)


def refuse_the_hopeless(train: Survey, labels: LabelSpec) -> None:
    """DataError where nothing can be learned from these rows."""
    if len(train) < 2:
        raise DataError(
            f"{_rows(train.num_rows)}, {len(train)} with a text; expected at least 2 rows with a text and a label.",
            where=train.name,
        )
    column, counts = train.labels.column, train.labels.counts
    if not counts:
        raise DataError(f'no row has a label in "{column}"; expected one at least.', where=train.name, field=column)
    if labels.kind == "single" and len(counts) < 2:
        only = f'every "{column}" is "{next(iter(counts))}"; expected two classes at least.'
        raise DataError(f"{only} Add examples of another class.", where=train.name, field=column)
    if labels.kind == "number" and train.labels.smallest == train.labels.largest:
        only = f'every "{column}" is {train.labels.smallest:g}; expected different numbers.'
        raise DataError(f"{only} There is nothing to learn.", where=train.name, field=column)
    if labels.kind == "single" and len(counts) == len(train) > 2:
        raise DataError(
            f'each of {len(train):,} rows has a "{column}" of its own; expected classes that several rows share. '
            f"Name the right column with data.label.",
            where=train.name,
            field=column,
        )


def _empties(part: Survey) -> list[str]:
    if not part.num_empty:
        return []
    shown = ", ".join(part.empty[:3]) + (", …" if part.num_empty > 3 else "")
    return [f"{part.name}: {_rows(part.num_empty)} of {part.num_rows:,} left out, as the text is empty ({shown})"]


def _duplicates(train: Survey) -> list[str]:
    repeated = len(train) - len(first_of_each(train.text_hashes))
    if not repeated:
        return []
    share = f"{100 * repeated / len(train):.1f} %"
    return [f"{train.name}: {_rows(repeated)} ({share}) with a text seen before; data.duplicates: drop leaves them out"]


def _conflicts(train: Survey) -> list[str]:
    """Equal texts with different labels: at best one of them is right."""
    conflicts = conflicting(train.text_hashes, train.label_keys)
    if not conflicts:
        return []
    keys = train.label_keys[conflicts[0]]
    one, other = int(train.rows[conflicts[0][0]]) + 1, int(train.rows[conflicts[0][np.argmax(keys != keys[0])]]) + 1
    num_texts = len(conflicts)
    which = "1 text has" if num_texts == 1 else f"{num_texts:,} texts have"
    return [f"{train.name}: {which} more than one label (for example rows {one} and {other}); one of them is wrong"]


def conflicting(groups: np.ndarray, label_keys: np.ndarray) -> list[np.ndarray]:
    """The rows of each group (equal texts, by number) that has more than one label; the earliest group first."""
    order = np.argsort(groups, kind="stable")
    numbers, keys = groups[order], label_keys[order]
    begins = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1])) if len(order) else np.zeros(0, np.int64)
    if not len(begins):
        return []
    differ = np.flatnonzero(np.minimum.reduceat(keys, begins) != np.maximum.reduceat(keys, begins))
    ends = np.append(begins[1:], len(order))
    found = [order[begins[i] : ends[i]] for i in differ.tolist()]
    return sorted(found, key=lambda rows: int(rows[0]))


def small_classes(counts: Mapping[str, int]) -> dict[str, int]:
    """Classes with too few rows to learn or judge."""
    return {name: count for name, count in counts.items() if count < FEW_EXAMPLES}


def _small_classes(train: Survey, counts: dict[str, int]) -> list[str]:
    few = small_classes(counts)
    if not few:
        return []
    shown = ", ".join(f"{name} {count}" for name, count in list(few.items())[:6]) + (", …" if len(few) > 6 else "")
    which = "1 class has" if len(few) == 1 else f"{len(few):,} classes have"
    return [f"{train.name}: {which} fewer than {FEW_EXAMPLES} examples ({shown}); too few to learn or judge them well"]


def _leaks(train: Survey, validation: Survey) -> list[str]:
    leaked = leaks(train.text_hashes, validation.text_hashes)
    if not len(leaked):
        return []
    share = f"{100 * len(leaked) / len(validation):.1f} %"
    return [
        f"{validation.name}: {_rows(len(leaked))} ({share}) with a text that is in {train.name} as well "
        f"(the first is row {int(validation.rows[leaked[0]]) + 1}); this makes the model look better than it is"
    ]


def _unseen_classes(validation: Survey, counts: dict[str, int], held_out: dict[str, int]) -> list[str]:
    unseen = [name for name, count in held_out.items() if count and not counts[name]]
    if not unseen:
        return []
    return [f"{validation.name}: {', '.join(unseen)} occurs here but never in train, so it can't be learned"]


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
