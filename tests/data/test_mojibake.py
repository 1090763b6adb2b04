"""Wrongly decoded text is put right; text that only looks odd stays."""

from __future__ import annotations

import pytest

from tunewright.data.mojibake import is_garbled, undone

MEANT = [
    "café",
    "it’s “fine” – really…",
    "naïve Zoë",
    "smile 🙂 🎉",
    "привет",
    "日本語",
    "5 µm, 20 °C, £3",
    "señor, très bien",
]


@pytest.mark.parametrize("text", MEANT)
def test_put_right(text):
    shown = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode())
    assert shown != text
    assert undone(shown) == text
    assert is_garbled(shown)


@pytest.mark.parametrize(
    "text",
    [
        *MEANT,
        "IRMÃ”",
        "CAFÉ…",
        "MENÜ–KARTE",
        "É” disse",
        "São João, não é à toa",
        "Ångström",
        "Ã",
        "â€",
        "plain",
        "Ð Ñ",
    ],
)
def test_left_alone(text):
    assert undone(text) == text
    assert not is_garbled(text)
