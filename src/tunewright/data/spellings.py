"""Labels that look like a slip: a rare one that is spelt nearly as a usual one, or a word among numbers.

Only suggests; equal but for spaces is the same label already (`raw_labels`). Knows label texts and counts, no rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from tunewright.data.raw_labels import MAX_INTEGER_CLASSES, NUMERIC, ObservedLabels, read_label

RARE = 0.1  # at most this much of the usual label's rows
ALIKE = 0.84  # difflib's ratio: positive and postive are 0.93, joy and boy 0.67
SHORTEST = 4  # characters; shorter words are alike by chance
MAX_LABELS = 300  # more are not compared
NEARLY_ALL = 0.95


def misspelt_labels(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """(rare, usual) pairs: the same but for case and signs, or a letter or two apart and rare."""
    if len(counts) > MAX_LABELS:
        return []
    by_count = sorted(counts, key=lambda label: (-counts[label], label))
    found: list[tuple[str, str]] = []
    for place, rare in enumerate(by_count):
        usual = next((each for each in by_count[:place] if _is_slip(rare, each, counts)), None)
        if usual is not None:
            found.append((rare, usual))
    return found


def _is_slip(rare: str, usual: str, counts: Mapping[str, int]) -> bool:
    if any(label.replace(".", "").replace("-", "").isdigit() for label in (rare, usual)):
        return False
    if _bare(rare) == _bare(usual) != "":
        return True
    if counts[rare] > RARE * counts[usual] or min(len(rare), len(usual)) < SHORTEST:
        return False
    if any(c.isdigit() for c in rare + usual):  # label_1 and label_2 are alike on purpose
        return False
    return difflib.SequenceMatcher(None, rare.lower(), usual.lower()).ratio() >= ALIKE


def _bare(label: str) -> str:
    return "".join(c for c in label.casefold() if c.isalnum())


def stray_labels(observed: ObservedLabels) -> list[str]:
    """Labels that aren't numbers, where nearly all rows have one of many different numbers."""
    words = [label for label in observed.counts if read_label(label, None).kinds[0] not in NUMERIC]
    rows = sum(observed.counts.values())
    stray = sum(observed.counts[word] for word in words)
    if not words or len(observed.counts) - len(words) <= MAX_INTEGER_CLASSES or rows - stray < NEARLY_ALL * rows:
        return []
    return words
