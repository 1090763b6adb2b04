"""What labels mean to the model: classes with names in order, several labels at once, or a number.

`infer_labels` makes a `LabelSpec` of what the survey saw and what the recipe says (`data.labels`); the spec encodes
labels for training and is saved with the model as `id2label`. Reads no files, holds no rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from tunewright.data.raw_labels import MAX_CLASSES, MAX_INTEGER_CLASSES, NUMERIC, ObservedLabels, read_label
from tunewright.errors import DataError, RecipeError, did_you_mean

Kind = Literal["single", "multi", "number"]
Setting = Mapping[str, str] | Sequence[str] | str  # {raw: name} | names in order | "auto" | "number"

LARGEST = 1e15  # of numbers to predict: the square must fit into 32 bits, and so must a sum of squares
VALUES_IN_CONFIG = "label_values"  # a saved config's list of `raw`, so that 0 and 1 are still known by their names

_PROBLEM_TYPES: dict[Kind, str] = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "number": "regression",
}


@dataclass(frozen=True)
class LabelSpec:
    """What the head's outputs mean. Index i of the model is class `names[i]`, spelt `raw[i]` in the data."""

    kind: Kind
    names: tuple[str, ...] = ()  # empty for number
    raw: tuple[str, ...] = ()  # label text of each name

    @property
    def num_outputs(self) -> int:
        return len(self.names) if self.kind != "number" else 1

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.names)) if self.kind != "number" else {0: "number"}

    @property
    def label2id(self) -> dict[str, int]:
        return {name: index for index, name in self.id2label.items()}

    @property
    def problem_type(self) -> str:
        """The same in transformers' words."""
        return _PROBLEM_TYPES[self.kind]

    @cached_property
    def _index(self) -> dict[str, int]:
        by_name = {read_label(name, None).texts[0]: i for i, name in enumerate(self.names)}
        return by_name | {raw: i for i, raw in enumerate(self.raw)}  # the data's own spelling wins

    def encode(self, value: Any, where: str | None = None, column: str = "label") -> int | tuple[int, ...] | float:
        """Index of the class (single), sorted indices (multi) or the number itself, of a label as given."""
        raw = read_label(value, where, column)
        if raw.is_list != (self.kind == "multi"):
            expected = {"single": "one label", "multi": "a list of labels", "number": "a number"}[self.kind]
            found = "a list" if raw.is_list else f'"{raw.texts[0]}"'
            raise DataError(f'"{column}" is {found}; expected {expected}.', where=where, field=column)
        if self.kind == "number":
            if raw.kinds[0] not in NUMERIC or abs(float(raw.texts[0])) > LARGEST:
                found = f'"{raw.texts[0]:.60}"; expected a number'
                raise DataError(f'"{column}" is {found} between ±{LARGEST:g}.', where=where, field=column)
            return float(raw.texts[0])
        indices = [self._index_of(text, where, column) for text in raw.texts]
        return indices[0] if self.kind == "single" else tuple(sorted(set(indices)))

    def _index_of(self, text: str, where: str | None, column: str) -> int:
        if (index := self._index.get(text)) is not None:
            return index
        known = list(dict.fromkeys((*self.raw, *self.names)))
        raise DataError(
            f'"{column}" is "{text}"; expected {_one_of(known)}.{did_you_mean(text, known)}', where=where, field=column
        )

    @classmethod
    def from_config(cls, config: Any) -> LabelSpec:
        """The labels of a saved model, from its transformers config."""
        names = tuple(str(name) for _, name in sorted((int(i), name) for i, name in config.id2label.items()))
        by_word: dict[str, Kind] = {word: kind for kind, word in _PROBLEM_TYPES.items()}
        guess: Kind = "number" if len(names) == 1 else "single"  # transformers reads a config without the word so
        kind = by_word.get(config.problem_type or "", guess)
        if kind == "number":
            return cls("number")
        if (values := getattr(config, VALUES_IN_CONFIG, None)) and len(values) == len(names):
            return cls(kind, names, tuple(map(str, values)))
        unnamed = all(name == f"LABEL_{i}" for i, name in enumerate(names))
        return cls(kind, names, tuple(map(str, range(len(names)))) if unnamed else _texts(names))


def infer_labels(observed: ObservedLabels, setting: Setting = "auto") -> LabelSpec:
    """The labels that the data has, or that the recipe names (`data.labels`)."""
    _refuse_lists_beside_scalars(observed)
    if setting == "number":
        return _numbers(observed)
    if setting == "auto" and observed.is_quantity:
        return _numbers(observed)
    kind: Kind = "multi" if "list" in observed.kinds else "single"
    if setting == "auto":
        names = _in_order(observed)
        return LabelSpec(kind, names, names)
    spec = _named(observed, kind, setting)
    for text, where in observed.first.items():
        spec.encode([text] if kind == "multi" else text, where, observed.column)
    return spec


def label_words(observed: ObservedLabels, spec: LabelSpec) -> str:
    """One sentence on the labels, for the run's header: "2 classes: negative 503, positive 497"."""
    if spec.kind == "number":
        words = f"numbers from {observed.smallest:g} to {observed.largest:g}"
        if "fraction" in observed.kinds or len(observed.counts) <= MAX_INTEGER_CLASSES:
            return words
        num_distinct = f"more than {MAX_CLASSES:,}" if observed.overflowed else str(len(observed.counts))
        return f"{words} ({num_distinct} different whole numbers; {MAX_INTEGER_CLASSES} or fewer would be classes)"
    counts = label_counts(observed, spec)
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:8])
    words = "classes" if spec.kind == "single" else "labels, any number of them per text"
    return f"{len(counts)} {words}: {shown}{', …' if len(counts) > 8 else ''}"


def label_counts(observed: ObservedLabels, spec: LabelSpec) -> dict[str, int]:
    """Rows per class name, in the order of the names; empty for numbers."""
    counts = dict.fromkeys(spec.names, 0)
    for text, count in observed.counts.items() if spec.kind != "number" else ():
        counts[spec.names[spec._index_of(text, observed.first[text], observed.column)]] += count
    return counts


def _numbers(observed: ObservedLabels) -> LabelSpec:
    for kind in sorted(observed.kinds.keys() - NUMERIC - {"scalar"}):
        raise DataError(
            f'"{observed.column}" is a {kind}; expected a number, since data.labels is "number".',
            where=observed.kinds[kind],
            field=observed.column,
        )
    spec = LabelSpec("number")
    for extreme in (observed.smallest, observed.largest):
        if abs(extreme) > LARGEST and math.isfinite(extreme):
            place = next((where for text, where in observed.first.items() if float(text) == extreme), None)
            spec.encode(extreme, place, observed.column)  # raises
    return spec


def _refuse_lists_beside_scalars(observed: ObservedLabels) -> None:
    if {"list", "scalar"} <= observed.kinds.keys():
        raise DataError(
            f'"{observed.column}" is a list here but a single value at {observed.kinds["scalar"]}; '
            f"expected lists everywhere (several labels per text) or nowhere.",
            where=observed.kinds["list"],
            field=observed.column,
        )


def _in_order(observed: ObservedLabels) -> tuple[str, ...]:
    """Integers by value, anything else by spelling: the same whatever the order of the rows."""
    numeric = observed.kinds.keys() <= NUMERIC | {"scalar", "list"}
    return tuple(sorted(observed.counts, key=float if numeric else None))


def _named(observed: ObservedLabels, kind: Kind, setting: Setting) -> LabelSpec:
    """Names of the recipe: {raw: name} in its order, or names alone (for texts, or for the integers 0, 1, 2…)."""
    if isinstance(setting, str):
        raise RecipeError(
            f'data.labels is "{setting}"; expected auto, number, {{value: name}} or a list of names.',
            field="data.labels",
        )
    names = tuple(map(str, setting.values() if isinstance(setting, Mapping) else setting))
    raw = _texts(setting, lower="boolean" in observed.kinds)
    counted = tuple(map(str, range(len(names))))
    if (
        not isinstance(setting, Mapping)
        and set(observed.counts) <= set(counted)
        and not set(observed.counts) & set(raw)
    ):
        raw = counted
    for words in (names, raw):
        if len(set(words)) < len(words):
            twice = next(word for word in words if words.count(word) > 1)
            raise RecipeError(f'data.labels has "{twice}" twice; expected different labels.', field="data.labels")
    return LabelSpec(kind, names, raw)


def _texts(labels: Iterable[Any], *, lower: bool = False) -> tuple[str, ...]:
    texts = [read_label(label, None, "data.labels").texts[0] for label in labels]
    return tuple(text.lower() if lower and text in ("True", "False") else text for text in texts)


def _one_of(known: Sequence[str]) -> str:
    shown = ", ".join(known[:12])
    return f"one of {shown}{f', … ({len(known)} in all)' if len(known) > 12 else ''}"
