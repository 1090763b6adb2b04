"""Text that was decoded with the wrong encoding once: found, and undone where it can be undone.

UTF-8 read as Windows-1252 turns é into Ã©, ’ into â€™ and 🙂 into ðŸ™‚. Only sequences that nobody writes on purpose
are taken, and only where they are UTF-8. Knows texts, no rows.
"""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"


def _shown(byte: int) -> str:
    """What Windows-1252 shows for a byte; Latin-1 where it has no character."""
    return bytes([byte]).decode("cp1252", "replace").replace(REPLACEMENT, chr(byte))


_BYTE_OF = {_shown(byte): byte for byte in range(0x80, 0x100)}
_FOLLOWING = "".join(re.escape(_shown(byte)) for byte in range(0x80, 0xC0))
_LETTERS = "".join(re.escape(_shown(byte)) for byte in range(0xA1, 0xC0))
_SEQUENCE = re.compile(
    # IRMÃ“ and CAFÉ… are words: after a capital letter only signs that no text has there count.
    rf"(?<![A-ZÀ-Þ])[ÂÃ][{_FOLLOWING}]|[ÂÃ][{_LETTERS}]|[ÄÅ][{_LETTERS}]"
    rf"|[Î-Ñ][{_FOLLOWING}](?:[Î-Ñ][{_FOLLOWING}])+"  # Greek and Cyrillic: two letters at least
    rf"|â€[{_FOLLOWING}]|[à-ï][{_FOLLOWING}]{{2}}(?:[à-ï][{_FOLLOWING}]{{2}})+|ðŸ[{_FOLLOWING}]{{2}}"
)


def is_garbled(text: str) -> bool:
    """Whether a sequence in it can be undone."""
    return not text.isascii() and undone(text) != text


def undone(text: str) -> str:
    """The text as it was meant."""
    return text if text.isascii() else _SEQUENCE.sub(_decoded, text)


def _decoded(match: re.Match[str]) -> str:
    found = match[0]
    try:
        return bytes(_BYTE_OF[sign] for sign in found).decode("utf-8")
    except UnicodeDecodeError:
        return found
