"""How many tokens a model can read at once, from its config."""

from __future__ import annotations

from typing import Any

NO_LIMIT = 1 << 20  # tokens, of a model whose positions are relative
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")


def context_length(config: Any) -> int:
    """Tokens that the model has positions for."""
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or NO_LIMIT
    return longest - (config.pad_token_id + 1) if config.model_type in _POSITIONS_AFTER_PADDING else longest
