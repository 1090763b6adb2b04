"""The words of many texts as numbers, in a file instead of memory: what near duplicates and giveaways are found in.

Filled by `gathering` a text at a time, read by `near_duplicates` and `giveaways`. A word is its CRC-32, the same in
every process; case, punctuation and spacing are gone. Scripts that don't put spaces between words give one "word"
per character.
"""

from __future__ import annotations

import re
import tempfile
import unicodedata
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from zlib import crc32

import numpy as np

_BUFFERED = 1 << 18  # words held before they go to the file
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_WORD = re.compile(rf"[^\W{_NO_SPACES}]+|[{_NO_SPACES}]")


@dataclass(frozen=True, eq=False)
class Words:
    """N texts as words, end to end."""

    flat: np.ndarray  # uint32, a memory-mapped file
    starts: np.ndarray  # int64 [N]
    lengths: np.ndarray  # int32 [N], at least 1

    def __len__(self) -> int:
        return len(self.starts)

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(words uint64 end to end, index into `rows` of each, its place within its text)."""
        lengths = self.lengths[rows].astype(np.int64)
        owner = np.repeat(np.arange(len(rows)), lengths)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.flat[np.repeat(self.starts[rows], lengths) + place].astype(np.uint64), owner, place

    def chunks(self, rows: np.ndarray, num_words: int = 1 << 17) -> Iterator[np.ndarray]:
        """`rows` in parts of about this many words."""
        begin, ends = 0, np.cumsum(self.lengths[rows], dtype=np.int64)
        while begin < len(rows):
            before = int(ends[begin - 1]) if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, before + num_words, "right")))
            yield rows[begin:end]
            begin = end


def distinct(keys: np.ndarray) -> np.ndarray:
    """Sorted and each once; several times as fast as np.unique, which hashes first."""
    keys = np.sort(keys)
    return keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys


class WordStore:
    """Takes texts, gives Words."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close(), or when dropped
        self._buffer = array("I")
        self._lengths = array("i")
        self._written = 0

    def add(self, text: str) -> None:
        """The next text."""
        found = words_of(text)
        self._buffer.extend(map(crc32, map(str.encode, found)))
        self._lengths.append(len(found))
        if len(self._buffer) >= _BUFFERED:
            self._flush()

    def close(self) -> Words:
        """All texts so far."""
        self._flush()
        self._file.flush()
        size = (self._written,)
        flat = np.memmap(self._file, np.uint32, "r", shape=size) if self._written else np.zeros(0, np.uint32)
        self._file.close()  # the map keeps it open
        lengths = np.array(self._lengths, np.int32)
        return Words(flat, np.cumsum(lengths, dtype=np.int64) - lengths, lengths)

    def __del__(self) -> None:
        self._file.close()

    def _flush(self) -> None:
        self._buffer.tofile(self._file)
        self._written += len(self._buffer)
        self._buffer = array("I")


def words_of(text: str) -> list[str]:
    """Lower-case words; the text itself where there is none in it (":-)")."""
    text = text.lower() if text.isascii() else unicodedata.normalize("NFC", text.lower())
    return _WORD.findall(text) or ["".join(text.split())]
