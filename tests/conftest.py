"""What every test may count on: no network, quiet libraries, one thread of torch, a cache of its own."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads only wait for each other

import pytest


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """Tokenised data of the tests stays out of the person's cache."""
    before = os.environ.get("TUNEWRIGHT_CACHE")
    os.environ["TUNEWRIGHT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TUNEWRIGHT_CACHE"]
    else:
        os.environ["TUNEWRIGHT_CACHE"] = before


@pytest.fixture(autouse=True, scope="session")
def _quiet():
    """No bars and no advice in the output."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
