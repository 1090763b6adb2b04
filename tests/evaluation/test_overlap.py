"""SQuAD's and ROUGE's numbers as the published scripts give them, and sane ones where those give none."""

from __future__ import annotations

import random

import pytest

from tunewright.evaluation import overlap as o

# Prediction, reference, exact match and F1 worked out by hand from the text of SQuAD's v1.1 rules.
SQUAD = [
    ("Paris", "Paris", 1, 1),
    ("The  Paris.", "paris", 1, 1),  # case, article, full stop, spaces
    ("a cat sat", "the cat", 0, 2 / 3),  # cat sat / cat: precision 1/2, recall 1
    ("an apple a day", "apple day", 1, 1),
    ("theatre", "atre", 0, 0),  # an article is a word, not a prefix
    ("U.S.A.", "USA", 1, 1),  # punctuation goes without leaving a space
    ("well-known", "well known", 0, 0),
    ("it's", "its", 1, 1),
    ("to be or not to be", "to be", 0, 0.5),  # 2 of 6, 2 of 2
    ("to to to", "to be to", 0, 2 / 3),  # counted as often as in both
    ("1,000", "1000", 1, 1),
    ("“Paris”", "Paris", 0, 0),  # ASCII punctuation only, as in the script
    ("", "Paris", 0, 0),
    ("Lyon", "Paris", 0, 0),
]
WORDS = ["The", "cat", "sat", "on", "mats,", "running-ran", "ties", "été", "3.5", "a", "U.S.", "flies", "—", "happily"]


def texts(seed: int, count: int, longest: int = 30) -> list[str]:
    """Nonsense with capitals, punctuation, accents and repeats; some texts are empty."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, longest))) for _ in range(count)]


@pytest.mark.parametrize(("prediction", "reference", "exact", "f1"), SQUAD)
def test_squad_by_hand(prediction: str, reference: str, exact: float, f1: float) -> None:
    found, expected = o.read(prediction), o.read(reference)
    assert o.exact_match(found, expected) == exact
    assert o.token_f1(found, expected) == pytest.approx(f1)


@pytest.mark.parametrize("rules", ["english", "any"])
@pytest.mark.parametrize(("prediction", "reference", "same"), [
    ("A", "A", 1), ("a", "A", 1), ("The", "A", 0), ("", "A", 0), ("B", "A", 0), ("...", "A", 0),
    ("+", "+", 1), ("-", "+", 0), (" + ", "+", 1), ("", "", 1), ("x", "", 0),
])  # fmt: skip
def test_an_answer_of_which_the_rules_leave_nothing(rules: o.Rules, prediction: str, reference: str, same: int) -> None:
    """By SQuAD's rules the choice "A" would be matched by every silence."""
    found, expected = o.read(prediction, rules), o.read(reference, rules)
    assert (o.exact_match(found, expected), o.token_f1(found, expected)) == (same, same)


def test_an_accent_is_the_same_however_it_was_typed() -> None:
    for rules in ("english", "any"):
        assert o.exact_match(o.read("Cafe\u0301", rules), o.read("caf\u00e9", rules)) == 1


def test_rouge_by_hand() -> None:
    found, expected = ["the", "cat", "sat", "on", "the", "mat"], ["the", "cat", "is", "on", "the", "mat"]
    assert o.rouge_n(found, expected, 1) == pytest.approx(5 / 6)
    assert o.rouge_n(found, expected, 2) == pytest.approx(3 / 5)
    assert o.rouge_l(found, expected) == pytest.approx(5 / 6)
    assert o.rouge_l(["b", "a"], ["a", "b"]) == 0.5  # order counts
    assert o.rouge_n(["paris"], ["paris"], 2) == 0  # a single word has no pairs, says rouge-score
    assert o.rouge_l([], ["a"]) == o.rouge_l(["a"], []) == o.rouge_l([], []) == o.rouge_n([], [], 1) == 0


def test_common_subsequence_equals_the_table_of_the_textbook() -> None:
    rng = random.Random(3)
    for _ in range(60):
        first, second = (rng.choices("abcd", k=rng.randint(0, 90)) for _ in range(2))
        row = [0] * (len(second) + 1)
        for letter in first:
            above, row = row, [0]
            for j, other in enumerate(second):
                row.append(above[j] + 1 if letter == other else max(row[j], above[j + 1]))
        assert o.common_subsequence(first, second) == row[-1]


@pytest.mark.parametrize("stemmed", [False, True])
def test_rouge_equals_rouge_score(stemmed: bool) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"], stemmed)
    stem = pytest.importorskip("nltk.stem.porter").PorterStemmer().stem if stemmed else None
    for prediction, reference in zip(texts(0, 60), texts(1, 60), strict=True):
        found, expected = (o.read(text, "english", stem).words for text in (prediction, reference))
        oracle = scorer.score(reference, prediction)
        assert o.rouge_n(found, expected, 1) == pytest.approx(oracle["rouge1"].fmeasure, abs=1e-12)
        assert o.rouge_n(found, expected, 2) == pytest.approx(oracle["rouge2"].fmeasure, abs=1e-12)
        assert o.rouge_l(found, expected) == pytest.approx(oracle["rougeL"].fmeasure, abs=1e-12)


# What rouge-score 0.1.2 gave, for machines that don't have it.
@pytest.mark.parametrize(("prediction", "reference", "scores"), [
    ("The quick brown fox jumps over the lazy dog.", "The quick brown dog jumped over a lazy fox!",
     (0.7777777777777778, 0.25, 0.5555555555555556)),
    ("A library for reading PNG-files", "library to read and write PNG files",
     (0.46153846153846156, 0.18181818181818182, 0.46153846153846156)),
    ("café-crème 3.5 %", "cafe creme 3.5", (0.4444444444444445, 0.28571428571428575, 0.4444444444444445)),
])  # fmt: skip
def test_rouge_as_recorded(prediction: str, reference: str, scores: tuple[float, float, float]) -> None:
    found, expected = o.english_words(prediction), o.english_words(reference)
    got = (o.rouge_n(found, expected, 1), o.rouge_n(found, expected, 2), o.rouge_l(found, expected))
    assert got == pytest.approx(scores, abs=1e-12)


def test_only_words_of_more_than_three_letters_are_stemmed() -> None:
    assert o.english_words("was wasps", lambda word: word[:-1]) == ["was", "wasp"]


@pytest.mark.parametrize(("text", "words"), [
    ("L'été, déjà!", ["l", "été", "déjà"]),
    ("Straße", ["strasse"]),
    ("我爱AI技术。", ["我", "爱", "ai", "技", "术"]),
    ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
    ("한국어 문장", ["한국어", "문장"]),
    ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs stay with their letter
    ("กิน ข้าว", ["กิ", "น", "ข้", "า", "ว"]),
    ("１９９８年", ["1998", "年"]),
    ("🙂", []),
])  # fmt: skip
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    assert o.any_words(text) == words


@pytest.mark.parametrize(("references", "rules"), [
    (["Paris", "the river Seine"], "english"),
    (["Beyoncé Knowles was born in Houston and performed in various singing and dancing competitions as a child, and "
      "rose to fame in the late 1990s as lead singer of a group of friends managed by her father"], "english"),
    (["L'été est déjà fini."], "any"),
    (["Der Bär schläft im Wald und träumt von Honig."], "any"),
    (["巴黎"], "any"),
    (["1998", "3.5 %", ""], "english"),
    ([], "english"),
])  # fmt: skip
def test_rules_follow_the_letters(references: list[str], rules: str) -> None:
    assert o.rules_for(references) == rules


def test_english_answers_among_accents_still_forgive_articles() -> None:
    found, expected = o.read("the Café", "any"), o.read("café!", "any")
    assert o.exact_match(found, expected) == o.token_f1(found, expected) == 1
    assert o.rouge_n(found.words, expected.words, 1) < 1  # ROUGE drops none


def test_an_emoji_is_an_answer_too() -> None:
    assert o.exact_match(o.read("🙂", "any"), o.read("☹", "any")) == 0
    assert o.exact_match(o.read("🙂", "any"), o.read("🙂", "any")) == 1


def test_long_texts_are_no_trouble() -> None:
    """A model that never stops: 20,000 words against 2,000."""
    found, expected = [str(i % 97) for i in range(20_000)], [str(i % 89) for i in range(2_000)]
    assert 0 < o.rouge_l(found, expected) < 1
