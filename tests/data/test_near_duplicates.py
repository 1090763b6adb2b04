"""Near duplicates against brute force and datasketch, and the two thresholds that decide."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from tunewright.data import near_duplicates as near
from tunewright.data.words import Words, WordStore, distinct, words_of


def store(texts: list[str]) -> Words:
    words = WordStore()
    for text in texts:
        words.add(text)
    return words.close()


def runs(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def similarity(one: str, other: str) -> float:
    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


def texts(count: int, seed: int = 0) -> list[str]:
    """Random texts, a third of them an earlier one with some words changed."""
    draw = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(400)]
    made: list[str] = []
    for i in range(count):
        words = draw.choices(vocabulary, k=draw.randint(1, 40))
        if i > 5 and i % 3 == 0:
            words = draw.choice(made).split()
            for _ in range(draw.randint(0, 4)):
                words[draw.randrange(len(words))] = draw.choice(vocabulary)
        made.append(" ".join(words))
    return list(dict.fromkeys(made))


def all_of(words: Words, rows: np.ndarray | None = None) -> near.Texts:
    return near.Texts(words, near.sketch(words), np.arange(len(words)) if rows is None else rows)


def true_groups(made: list[str]) -> list[int]:
    groups = list(range(len(made)))
    for i, j in itertools.combinations(range(len(made)), 2):
        if similarity(made[i], made[j]) >= near.THRESHOLD:
            a, b = sorted((groups[i], groups[j]))
            groups = [a if group == b else group for group in groups]
    return groups


def test_jaccard_is_exact():
    made = texts(150)
    words = store(made)
    left, right = np.array(list(itertools.combinations(range(len(made)), 2))).T
    expected = [similarity(made[i], made[j]) for i, j in zip(left, right, strict=True)]
    assert near.jaccard(words, left, words, right) == pytest.approx(expected, abs=1e-12)


def test_groups_are_those_of_brute_force():
    made = texts(500)
    assert near.near_groups(all_of(store(made))).tolist() == true_groups(made)


def test_finds_what_datasketch_finds():
    """Its LSH at the same threshold with the same bands, its candidates verified exactly."""
    made = texts(400, seed=3)
    hashes = []
    for text in made:
        hashed = MinHash(num_perm=125, seed=7)
        for run in runs(text):
            hashed.update(" ".join(run).encode())
        hashes.append(hashed)
    index = MinHashLSH(num_perm=125, params=(25, 5))
    for i, hashed in enumerate(hashes):
        index.insert(i, hashed)
    pairs = {
        tuple(sorted((i, j)))
        for i, hashed in enumerate(hashes)
        for j in index.query(hashed)
        if i != j and similarity(made[i], made[j]) >= near.THRESHOLD
    }
    groups = near.near_groups(all_of(store(made)))
    assert len(pairs) > 20
    assert all(groups[i] == groups[j] for i, j in pairs)


def test_the_estimate_of_similarity_is_unbiased():
    made = texts(300, seed=5)
    sketches = near.sketch(store(made))
    pairs = [p for p in itertools.combinations(range(len(made)), 2) if similarity(made[p[0]], made[p[1]]) > 0.2]
    agree = [(sketches.bytes[i] == sketches.bytes[j]).mean() for i, j in pairs]
    errors = np.array(agree) - [similarity(made[i], made[j]) for i, j in pairs]
    assert abs(errors.mean()) < 0.02
    assert errors.std() < 0.06


def test_one_word_of_twenty_counts_as_near_and_of_ten_does_not():
    text = " ".join(f"a{i}" for i in range(20))
    short = " ".join(f"b{i}" for i in range(10))
    made = [text, text.replace("a10", "x"), short, short.replace("b5", "x")]
    assert near.near_groups(all_of(store(made))).tolist() == [0, 0, 2, 3]


def test_a_thousand_rows_of_one_template_are_one_group():
    made = [" ".join([f"t{k}" for k in range(30)] + [f"n{i}"]) for i in range(1_000)]
    assert set(near.near_groups(all_of(store(made))).tolist()) == {0}


def test_matches_across_two_parts():
    made = texts(400, seed=9)
    train, held_out = np.arange(0, len(made), 2), np.arange(1, len(made), 2)
    words = store(made)
    partner, found = near.near_matches(all_of(words, train), all_of(words, held_out))
    for i, row in enumerate(held_out):
        best = max(similarity(made[row], made[j]) for j in train)
        assert (partner[i] >= 0) == (best >= near.THRESHOLD)
        if partner[i] >= 0:
            assert partner[i] in train
            assert found[i] == pytest.approx(similarity(made[row], made[partner[i]]))


def test_nothing_depends_on_the_process():
    assert near.sketch(store(["a b c d"])).bands[0, 0] == 1845963601  # sanity of CRC-32, seeds and mixing


def test_words_of_scripts_without_spaces():
    assert words_of("Hello, WORLD!") == ["hello", "world"]
    assert words_of("日本語") == ["日", "本", "語"]
    assert words_of(":-)") == [":-)"]
    assert words_of("caf\u0065\u0301") == ["café"]


def test_words_go_through_the_file():
    words = store([f"w{i} same" for i in range(200_000)])
    assert len(words.flat) == 400_000
    assert len(distinct(words.flat[1::2])) == 1
    assert distinct(np.zeros(0, np.uint64)).tolist() == []
