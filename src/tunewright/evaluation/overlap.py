"""How far a written text agrees with the one expected: exact match, token F1 and ROUGE. Pure functions of two texts.

Below `texts`, which takes the best of several references and makes the table. Knows no rows, no averages, no intervals.

`english` rules are those of the published scripts, so that numbers can be compared: SQuAD's normalisation (Rajpurkar et
al. 2016) and rouge-score's words. Both know a–z and no other letter: a Chinese summary has no word for them, "été" has
two. `any` rules serve the other languages; `rules_for` chooses by the references alone, so that two models answering
the same rows are read alike.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Rules = Literal["english", "any"]

# English with its names and loan words stays far below, French and German far above.
FOREIGN_SHARE = 0.01

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ENGLISH_WORD = re.compile(r"[a-z0-9]+")
# Thai, Lao, Burmese, Khmer, kana, Han: written without spaces, so each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Among letters, digits, marks and spaces, what is neither \w nor space is a mark: it stays with its letter.
_ANY_WORD = re.compile(rf"[{_UNSPACED}][^\w\s]*|[^\s{_UNSPACED}]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as the metrics see it."""

    plain: str  # without case and outer spaces
    answer: str  # normalised for exact match; may be empty
    answer_words: list[str]  # what token F1 counts
    words: list[str]  # what ROUGE and lengths count


def read(text: str, rules: Rules = "english", stem: Callable[[str], str] | None = None) -> Reading:
    """A text once, for all metrics. `stem` shortens ROUGE's words of more than three letters, as rouge-score can."""
    if rules == "any":
        words = any_words(text)
        # Whatever the language: English text with many accents must not lose what the other rules forgive.
        answer_words = [word for word in words if not _ARTICLES.fullmatch(word)]
        return Reading(_one_form(text).strip().casefold(), " ".join(answer_words), answer_words, words)
    answer = squad_normalised(text)
    return Reading(_one_form(text).strip().lower(), answer, answer.split(), english_words(text, stem))


def rules_for(references: Iterable[str]) -> Rules:
    """`english`, unless a noticeable share of the letters is none of a–z."""
    letters = foreign = 0
    for text in references:
        found = sum(map(str.isalpha, text))
        letters += found
        if not text.isascii():
            foreign += found - sum(c.isascii() and c.isalpha() for c in text)
    return "any" if foreign > FOREIGN_SHARE * letters else "english"


# --- texts -> words ---------------------------------------------------------------------------------------------


def squad_normalised(text: str) -> str:
    """SQuAD's: lower case, without ASCII punctuation, then without articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", _one_form(text).lower().translate(_PUNCTUATION)).split())


def english_words(text: str, stem: Callable[[str], str] | None = None) -> list[str]:
    """rouge-score's: runs of a–z and 0–9, everything else separates."""
    words = _ENGLISH_WORD.findall(text.lower())
    return words if stem is None else [stem(word) if len(word) > 3 else word for word in words]


def any_words(text: str) -> list[str]:
    """Runs of letters, digits and their marks in any script; single characters where a script puts no spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return _ANY_WORD.findall("".join(c if c.isalnum() or _is_mark(c) else " " for c in text))


def unspaced_letters(text: str) -> list[str]:
    """Those of scripts that are written without spaces."""
    return [c for c in re.findall(rf"[{_UNSPACED}]", text) if c.isalpha()]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def _one_form(text: str) -> str:
    """An accented letter is one character, however it was typed."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


# --- words -> scores, each from 0 to 1 --------------------------------------------------------------------------


def exact_match(prediction: Reading, reference: Reading) -> float:
    """1 where the normalised texts are equal.

    Where nothing of the reference is left ("A" of a multiple choice, "+"), SQuAD's rules would accept every text of
    which nothing is left either; the plain texts are compared instead.
    """
    if not reference.answer:
        return float(prediction.plain == reference.plain)
    return float(prediction.answer == reference.answer)


def token_f1(prediction: Reading, reference: Reading) -> float:
    """F1 of the words in common, counted as often as they occur in both."""
    if not reference.answer:
        return exact_match(prediction, reference)
    return _f_measure(prediction.answer_words, reference.answer_words)


def rouge_n(prediction: Sequence[str], reference: Sequence[str], n: int) -> float:
    """ROUGE-N (Lin 2004), F-measure of the runs of n words in common; 0 where a text has none."""
    return _f_measure(_runs(prediction, n), _runs(reference, n))


def rouge_l(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """ROUGE-L, F-measure of the longest sequence of words that both hold in this order, gaps allowed."""
    total = len(prediction) + len(reference)
    return 2 * common_subsequence(prediction, reference) / total if total else 0.0


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence; a row of the table is one whole number (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << i
    row = full = (1 << len(first)) - 1
    for word in second:
        if word in places:
            match = row & places[word]
            row = ((row + match) | (row - match)) & full
    return len(first) - row.bit_count()


def _runs(words: Sequence[str], n: int) -> Sequence[object]:
    return words if n == 1 else list(zip(*(words[i:] for i in range(n)), strict=False))


def _f_measure(found: Sequence[object], expected: Sequence[object]) -> float:
    """2PR / (P + R), which is twice the common ones over all."""
    if not found or not expected:
        return 0.0
    return 2 * (Counter(found) & Counter(expected)).total() / (len(found) + len(expected))
