"""Windows: every token predicted once and none lost, short documents untouched, special tokens where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from tests import tiny
from tunewright.data.batching import collate
from tunewright.data.windows import masked_windows, windows
from tunewright.data.written_tokens import WrittenDataset
from tunewright.errors import RecipeError
from tunewright.models.likelihoods import next_tokens

BOS = 1


def documents(*texts, cut=0):
    """A dataset of these token lists; all but a BOS at the start is to be learnt."""
    lengths = np.array([len(text) for text in texts], np.int32)
    ids = np.concatenate([np.array(text, np.int32) for text in texts])
    return WrittenDataset(
        input_ids=ids,
        starts=np.cumsum(lengths, dtype=np.int64) - lengths,
        lengths=lengths,
        full_lengths=lengths + cut,
        rows=np.arange(len(texts), dtype=np.int64) * 10,
        labels=np.zeros((len(texts), 0), np.float32),
        fingerprint="documents",
        targets=ids != BOS,
    )


def predicted(dataset):
    """Each row's predicted tokens in order, as the objective sees them."""
    found = {}
    for i in range(len(dataset)):
        _, targets = next_tokens(collate(dataset, np.array([i])))
        found.setdefault(int(dataset.rows[i]), []).extend(targets.tolist())
    return found


def test_windows_of_a_known_document():
    made = windows(documents(range(10, 20), [30, 31]), 4)
    assert [made.tokens(i).tolist() for i in range(len(made))] == [
        [10, 11, 12, 13],
        [13, 14, 15, 16],
        [16, 17, 18, 19],
        [30, 31],
    ]
    assert [made.is_target(i).tolist() for i in (0, 1)] == [[True] * 4, [False, True, True, True]]
    assert made.rows.tolist() == [0, 0, 0, 10]


def test_windows_with_a_bos_of_their_own():
    made = windows(documents([BOS, *range(10, 18)]), 5, bos=BOS)
    assert [made.tokens(i).tolist() for i in range(len(made))] == [
        [BOS, 10, 11, 12, 13],
        [BOS, 13, 14, 15, 16],
        [BOS, 16, 17],
    ]
    assert made.is_target(1).tolist() == [False, False, True, True, True]
    assert made.lengths.tolist() == [5, 5, 3]


@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize("max_length", [3, 4, 5, 7, 50])
def test_every_token_is_predicted_once_and_in_order(bos, max_length):
    texts = [[BOS, *range(100 * n, 100 * n + length)] for n, length in enumerate((1, 2, 3, 4, 9, 10, 11, 30), 1)]
    whole = documents(*texts)
    made = windows(whole, max_length, bos)
    assert made.lengths.max() <= max_length and made.lengths.min() > 1
    assert predicted(made) == predicted(whole)
    assert made.num_targets == whole.num_targets and made.truncated_rows == 0
    assert made.lengths.tolist() == [len(made.tokens(i)) for i in range(len(made))]
    assert made.lengths.tolist() == [len(made.is_target(i)) for i in range(len(made))]


def test_documents_that_fit_stay_as_they_are_and_share_their_tokens():
    whole = documents([BOS, 5, 6], range(10, 14), cut=3)
    made = windows(whole, 4, bos=BOS)
    assert made.lengths.tolist() == [3, 4] and not made.framed.any()
    assert np.shares_memory(made.tokens(1), whole.input_ids)
    assert made.truncated_tokens == whole.truncated_tokens == 6


def test_what_was_lost_before_is_said_once():
    whole = documents(range(10, 30), cut=7)
    assert windows(whole, 4).truncated_tokens == 7 and windows(whole, 4).truncated_rows == 1


def test_a_subset_keeps_its_windows():
    made = windows(documents(range(10, 20), [30, 31]), 4, bos=BOS)
    part = made.subset([3, 1, 4])
    assert [part.tokens(i).tolist() for i in range(3)] == [made.tokens(i).tolist() for i in (3, 1, 4)]
    assert [part.is_target(i).tolist() for i in range(3)] == [made.is_target(i).tolist() for i in (3, 1, 4)]


def test_what_decides_the_windows_is_in_the_fingerprint():
    whole = documents(range(10, 20))
    prints = {windows(whole, size, bos).fingerprint for size in (4, 5) for bos in (None, BOS)}
    assert len(prints | {whole.fingerprint}) == 5


@pytest.mark.parametrize("max_length, bos, least", [(1, None, 2), (2, BOS, 3)])
def test_no_room_to_learn(max_length, bos, least):
    with pytest.raises(RecipeError, match=f"data.max_length is {max_length}, .*expected at least {least}"):
        windows(documents([5, 6, 7]), max_length, bos)


# ---- for masked tokens ----

CLS, SEP = 1, 2  # of the tiny BERT tokenizer


@pytest.mark.parametrize("ends", [(), (SEP,)], ids=["no end of its own", "with its end"])
def test_masked_windows_of_a_known_document(ends):
    made = masked_windows(documents([CLS, 10, 11, 12, 13, 14, *ends], [CLS, 20, *ends]), 6, tiny.tokenizer("bert"))
    assert [made.tokens(i).tolist() for i in range(len(made))] == [
        [CLS, 10, 11, SEP],
        [CLS, 12, 13, 14, SEP],
        [CLS, 20, SEP],
    ]
    assert [made.is_target(i).tolist() for i in (0, 2)] == [[False, True, True, False], [False, True, False]]
    assert made.lengths.tolist() == [4, 5, 3] and made.rows.tolist() == [0, 0, 10]


@pytest.mark.parametrize("max_length", [3, 4, 5, 8, 64])
def test_masked_windows_lose_nothing_and_are_alike(max_length):
    texts = [[CLS, *range(100 * n, 100 * n + length)] for n, length in enumerate((1, 2, 3, 4, 9, 10, 11, 30), 1)]
    made = masked_windows(documents(*texts), max_length, tiny.tokenizer("bert"))
    found = {}
    for i in range(len(made)):
        tokens = made.tokens(i).tolist()
        assert len(tokens) == made.lengths[i] == len(made.is_target(i)) <= max_length
        assert (tokens[0], tokens[-1]) == (CLS, SEP)
        found.setdefault(int(made.rows[i]), []).append(tokens[1:-1])
    assert [[token for part in parts for token in part] for parts in found.values()] == [text[1:] for text in texts]
    assert all(max(map(len, parts)) - min(map(len, parts)) <= 1 for parts in found.values())


def test_no_room_for_a_masked_token():
    with pytest.raises(RecipeError, match=r"data.max_length is 2, .*expected at least 3"):
        masked_windows(documents([CLS, 5]), 2, tiny.tokenizer("bert"))
