"""Text while it is being written: stop strings across the borders of tokens, and pieces that may be shown already.

Beside `generation`, which asks `StopStrings`; `TextStream` is for whoever shows tokens as they come. Neither needs the
whole completion decoded at every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TOKENS_PER_CHARACTER = 4  # byte-level vocabularies may spend a token on each byte
UNFINISHED = "\ufffd"  # what decoding gives for a character whose last bytes are still to come


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string in it."""
    places = [place for place in (text.find(word) for word in stop) if place >= 0]
    return text[: min(places)] if places else text


class StopStrings:
    """Whether the newest token of a completion completes a stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.num_tokens = TOKENS_PER_CHARACTER * max(map(len, stop), default=0) + TOKENS_PER_CHARACTER

    def reached(self, ids: Sequence[int]) -> bool:
        """Looks at the last tokens only. Special tokens count with their text, so `<|im_end|>` may be a stop string."""
        if not self.stop:
            return False
        tail = self.tokenizer.decode(
            list(ids[-self.num_tokens :]), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return any(word in tail for word in self.stop)


class TextStream:
    """Token ids in, text out, piece by piece; the pieces laid end to end are the completion's text.

    Held back until it is decided: half a character, and what may turn out to be the start of a stop string.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self._before: list[int] = []  # already decoded; kept because a token's text hangs on the one before it
        self._ids: list[int] = []
        self._held = ""
        self._stopped = False

    def push(self, token: int) -> str:
        """The text that may be shown now that this token is there."""
        self._ids.append(token)
        text = self._new_text()
        if text.endswith(UNFINISHED) and len(self._ids) <= TOKENS_PER_CHARACTER:
            return ""
        self._before, self._ids = (self._before + self._ids)[-2 * TOKENS_PER_CHARACTER :], []
        self._held += text
        return self._release(len(self._held) - self._undecided())

    def end(self) -> str:
        """What was held back, when no more tokens come."""
        self._held += self._new_text()
        self._ids = []
        return self._release(len(self._held))

    def _new_text(self) -> str:
        return self._decode(self._before + self._ids)[len(self._decode(self._before)) :]

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _undecided(self) -> int:
        """Characters at the end that may begin a stop string."""
        longest = max(map(len, self.stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(word.startswith(self._held[-length:]) for word in self.stop):
                return length
        return 0

    def _release(self, length: int) -> str:
        """Hand out this many held characters, or those before a stop string and then nothing more."""
        kept = cut_at_stop(self._held, self.stop)
        if self._stopped or len(kept) < len(self._held):
            shown, self._held = "" if self._stopped else kept, ""
            self._stopped = True
            return shown
        shown, self._held = self._held[:length], self._held[length:]
        return shown
