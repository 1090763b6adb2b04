"""How many bytes a run writes: what stays in its folder, and what is there only while it runs."""

from __future__ import annotations

from tunewright.planning.estimate import Disk, Part

BYTES_PER_TOKEN = 4.5  # of text, as predictions repeat it
BYTES_PER_PREDICTION = 200  # labels, probabilities, loss
REPORT = 1_000_000  # report, curves, environment, tokenizer


def estimate_disk(
    *,
    trainable: int,
    keep_checkpoints: int,
    num_checkpoints: int,
    saved_bytes: int,
    cache_bytes: int,
    token_bytes: int,
    validation_tokens: int,
    validation_rows: int,
    free_bytes: int,
) -> Disk:
    """Weights and two moments per checkpoint; those that are kept, the best, and the one being written."""
    held = min(num_checkpoints + 1, keep_checkpoints + 2)
    return Disk(
        (
            Part(f"checkpoints, at most {held} at once", held * 12 * trainable),
            Part("model", saved_bytes),
            Part("token arrays", token_bytes),
            Part("boundary cache, removed at the end", cache_bytes),
            Part(
                "predictions and report",
                REPORT + validation_tokens * BYTES_PER_TOKEN + validation_rows * BYTES_PER_PREDICTION,
            ),
        ),
        free_bytes,
    )
