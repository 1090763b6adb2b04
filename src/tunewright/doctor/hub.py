"""Whether the Hub can be reached: one question, asked while the other checks run.

Part of `examination`. Sends no token and fetches nothing.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from tunewright.doctor.check import Check

HUB_SECONDS = 2.0


class Hub:
    """Asks the Hub while the other checks run; a name server that hangs must not hold up anybody."""

    def __init__(self) -> None:
        self.endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        self.offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        self.answer: str | None = None  # what came back: "" for all is well
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._began = time.monotonic()
        if not self.offline:
            self._thread.start()

    def _ask(self) -> None:
        """Any answer of the server will do: whether it lets us in to something is asked when something is wanted."""
        begin = time.monotonic()
        try:
            import httpx2

            status = httpx2.head(self.endpoint, timeout=HUB_SECONDS).status_code
            self.answer = f"it answers {status}" if status >= 500 else ""
        except Exception as error:  # whatever it is, the Hub can't be used: that is the finding
            self.answer = type(error).__name__
        self.seconds = time.monotonic() - begin

    def check(self) -> Check:
        values: dict[str, Any] = {"endpoint": self.endpoint, "offline": self.offline}
        if self.offline:
            return Check("hub", "ok", "HF_HUB_OFFLINE is set: nothing is asked of the Hub", "", values)
        self._thread.join(max(0.0, HUB_SECONDS + self._began - time.monotonic()))
        if self.answer == "":
            token = "with a token" if self._has_token() else "without a token, so no private or gated models"
            values |= {"seconds": round(self.seconds, 3)}
            return Check("hub", "ok", f"{self.endpoint} answers in {self.seconds:.1f} s, {token}", "", values)
        why = self.answer or f"no answer in {HUB_SECONDS:g} s"
        fix = "models and data by Hub id can't be loaded; folders, files and minilm can. Check connection and proxy"
        return Check("hub", "warn", f"{self.endpoint} can't be reached ({why})", fix, values)

    def _has_token(self) -> bool:
        from huggingface_hub import get_token

        return get_token() is not None

    def cache(self) -> Path:
        """Where the Hub's client keeps what it downloads."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)
