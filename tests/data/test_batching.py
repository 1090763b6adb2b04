"""Steps: every example once, the same again from (seed, epoch); micro-batches: within budget, nothing lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tunewright.data.batching import WINDOW, collate, cut_by_tokens, epoch_steps, lay_end_to_end, micro_batches

LENGTHS = np.random.default_rng(0).integers(3, 200, 1003)


def test_an_epoch_shows_every_example_once():
    steps = epoch_steps(LENGTHS, 8, seed=1, epoch=0)
    assert len(steps) == 126
    assert sorted(np.concatenate(steps)) == list(range(1003))
    assert sorted(len(s) for s in steps)[:2] == [3, 8]


def test_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        return np.concatenate(epoch_steps(LENGTHS, 8, seed=seed, epoch=epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3) != order(2, 3)


def test_texts_of_a_step_have_nearly_equal_lengths():
    steps = epoch_steps(LENGTHS, 8, seed=0, epoch=0)
    padded = sum(len(s) * LENGTHS[s].max() for s in steps)
    shuffled = np.random.default_rng(0).permutation(1003)[:1000].reshape(-1, 8)
    assert padded / LENGTHS.sum() < 1.06
    assert (LENGTHS[shuffled].max(1) * 8).sum() / LENGTHS[shuffled].sum() > 1.5
    assert len({int(LENGTHS[s].mean()) // 20 for s in steps[:WINDOW]}) > 3  # and the steps themselves are shuffled


@pytest.mark.parametrize("budget", [1, 150, 400, 10**6])
def test_micro_batches_respect_the_budget_and_lose_nothing(budget):
    step = np.arange(20)
    parts = micro_batches(step, LENGTHS, budget)
    assert sorted(np.concatenate(parts)) == list(range(20))
    assert all(LENGTHS[p].sum() <= budget or len(p) == 1 for p in parts)
    assert all(len(p) for p in parts)  # an empty one has no loss
    assert budget < 10**6 or len(parts) == 1


def test_ranks_share_a_step():
    step = np.array([5, 3, 9, 11, 2])
    own = [np.concatenate(micro_batches(step, LENGTHS, 10**6, rank=r, world_size=2)) for r in (0, 1)]
    assert sorted(np.concatenate(own)) == sorted(step)
    assert micro_batches(np.array([4]), LENGTHS, 100, rank=1, world_size=2) == []


def test_cutting_keeps_order():
    parts = cut_by_tokens(np.array([0, 1, 2]), np.array([5, 5, 5]), 10)
    assert [p.tolist() for p in parts] == [[0, 1], [2]]
    full = cut_by_tokens(np.arange(4), np.array([5, 5, 5, 5]), 10)  # each part may be full to the last token
    assert [p.tolist() for p in full] == [[0, 1], [2, 3]]
    assert cut_by_tokens(np.array([], dtype=int), np.array([5]), 10) == []


def test_texts_lie_end_to_end():
    texts = lay_end_to_end([[1, 2], np.array([3], dtype=np.int32)])
    assert texts.input_ids.tolist() == [1, 2, 3] and texts.lengths == (2, 1) and texts.num_tokens == 3
    stored = lay_end_to_end([np.array([3], dtype=np.int32)])
    assert stored.input_ids.dtype == torch.int64  # what an embedding takes, whatever the arrays on disk hold
    assert texts.device == torch.device("cpu")


def test_texts_of_one_length_keep_their_order():
    """A sort that isn't stable would make the order depend on the processor, and a resumed run another run."""
    equal = np.full(256, 7)
    order = np.random.default_rng([5, 2]).permutation(256)
    steps = epoch_steps(equal, 8, seed=5, epoch=2)
    assert {tuple(s) for s in steps} == {tuple(s) for s in order.reshape(-1, 8)}
    few = np.array([5, 6, 7])[np.random.default_rng(0).integers(0, 3, 256)]  # few lengths, many ties
    expected = np.concatenate([order[few[order] == length] for length in (5, 6, 7)])
    assert np.concatenate(micro_batches(order, few, 70)).tolist() == expected.tolist()


def test_windows_are_sorted_apart():
    """Wider windows would sort better and shuffle less; a resumed run needs the one it began with."""
    assert WINDOW == 32
    order = np.random.default_rng([0, 0]).permutation(1003)
    first = order[: 32 * 8]
    first = first[np.argsort(LENGTHS[first], kind="stable")]
    steps = {tuple(s) for s in epoch_steps(LENGTHS, 8, seed=0, epoch=0)}
    assert {tuple(s) for s in first.reshape(-1, 8)} <= steps


@dataclass(frozen=True)
class Stored:
    """Three texts with labels, as on disk."""

    labels: np.ndarray

    def tokens(self, index: int) -> np.ndarray:
        return np.arange(index + 1, dtype=np.int32)


def test_a_batch_is_the_examples_asked_for():
    batch = collate(Stored(np.array([5, 6, 7])), np.array([2, 0]))
    assert batch.texts.input_ids.tolist() == [0, 1, 2, 0] and batch.texts.lengths == (3, 1)
    assert batch.labels.tolist() == [7, 5]
    assert batch.indices.tolist() == [2, 0]
    assert batch.labels.device == batch.texts.device == torch.device("cpu")


def test_labels_keep_their_shape_and_type():
    several = np.asfortranarray(np.eye(3, dtype=np.float32))
    labels = collate(Stored(several), np.array([1, 2])).labels
    assert labels.dtype == torch.float32 and labels.tolist() == [[0, 1, 0], [0, 0, 1]]
