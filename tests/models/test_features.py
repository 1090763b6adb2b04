"""Features are means over each text's own tokens, whatever stands beside it, and are computed once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests import whole
from tunewright.data.labels import LabelSpec
from tunewright.models.features import kept_features, text_features
from tunewright.models.finding import resolve_base
from tunewright.models.forward import Forward
from tunewright.models.loading import load_base


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_text_has_the_features_it_has_alone(kind: str) -> None:
    labels = LabelSpec("single", ("a", "b"), ("a", "b"))
    model = load_base(resolve_base(str(whole.base(kind)), None, Path("runs")), labels, seed=0, dropout=0.0).model
    texts = [np.array(ids, np.int32) for ids in ([5, 6, 7, 8, 9], [], [10, 11], [7])]
    lengths = np.array([len(ids) for ids in texts])
    dataset = SimpleNamespace(tokens=lambda i: texts[i], labels=np.zeros(4))
    found = text_features(Forward.checked(model), dataset, lengths)
    body = getattr(model, model.base_model_prefix).eval()
    with torch.no_grad():
        for i in (0, 2, 3):
            alone = body(input_ids=torch.tensor([texts[i].tolist()])).last_hidden_state[0].mean(0).numpy()
            assert found[i] == pytest.approx(alone, abs=1e-5)
    assert not found[1].any()


def test_kept_features_are_not_made_again(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> np.ndarray:
        made.append(1)
        return np.ones((2, 3), np.float32)

    for _ in range(2):
        assert kept_features(tmp_path / "a" / "b.safetensors", make).shape == (2, 3)
    assert made == [1]
