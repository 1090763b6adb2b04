"""The head of each architecture, by name."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.models.made import HEADS, LABELS
from tunewright.models.heads import head_modules, is_in
from tunewright.models.loading import load_base, resolve_base


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_everything_behind_the_last_layer(kind, tmp_path):
    loaded = load_base(resolve_base(str(tiny.save(kind, tmp_path))), LABELS, seed=0)
    assert head_modules(loaded.model, loaded.new_parameters) == HEADS[kind]
    assert all(is_in(name, HEADS[kind]) for name in loaded.new_parameters)


def test_a_part_that_loading_invented_belongs_to_it(tmp_path):
    loaded = load_base(resolve_base(str(tiny.save("bert", tmp_path))), LABELS, seed=0)
    invented = "bert.encoder.layer.1.output.dense.weight"
    assert "bert.encoder.layer.1.output.dense" in head_modules(loaded.model, [invented])
