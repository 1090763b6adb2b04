"""Which tokens of a vocabulary begin a word, read off their spelling: what masking whole words needs to know.

Beside `encoding`; the mask itself is drawn in learning. Knows the three spellings in use: WordPiece ("##ing" goes on),
byte-level BPE ("Ġing" begins) and SentencePiece ("▁ing" begins). Needs no torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

GOES_ON = "##"
BEGINS = ("Ġ", "Ċ", "▁")  # a space, a line end, SentencePiece's space


def word_starts(tokenizer: Any) -> np.ndarray:
    """bool [V], True = begins a word. All True where the spelling doesn't say."""
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    starts = np.ones(size, np.bool_)
    names = {index: name for name, index in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    plain = {index: name for index, name in names.items() if index not in special}
    if any(name.startswith(GOES_ON) and name != GOES_ON for name in plain.values()):
        goes_on = [index for index, name in plain.items() if name.startswith(GOES_ON) and name != GOES_ON]
    elif any(name.startswith(BEGINS) for name in plain.values()):
        goes_on = [index for index, name in plain.items() if not name.startswith(BEGINS)]
    else:
        goes_on = []
    starts[goes_on] = False
    return starts
