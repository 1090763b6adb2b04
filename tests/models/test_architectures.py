"""The table names things that exist."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import CONFIG_MAPPING

from tests.models import configs
from tunewright.models import architectures


@pytest.mark.parametrize("kind", configs.DESCRIBED)
def test_every_path_leads_somewhere(kind):
    model = configs.build(kind)
    row = architectures.find(model)
    base = getattr(model, model.base_model_prefix)
    layers = base.get_submodule(row.layers)
    assert isinstance(layers, nn.ModuleList) and len(layers) == 3
    if row.final_norm:
        base.get_submodule(row.final_norm)
    if row.last_layer:
        for path in (row.last_layer.query, row.last_layer.key, row.last_layer.value):
            assert isinstance(layers[0].get_submodule(path), nn.Linear)
        assert layers[0].get_submodule(row.last_layer.attention).scaling > 0


@pytest.mark.parametrize("kind", configs.PLAIN)
def test_shared_and_foreign_layers_are_not_described(kind):
    assert architectures.find(configs.build(kind)) is None


def test_every_row_is_a_model_type_of_transformers():
    assert set(architectures.ARCHITECTURES) <= set(CONFIG_MAPPING)


def test_only_modernbert_with_mean_pools_by_mean():
    found = {kind for kind in configs.DESCRIBED if architectures.pools_by_mean(configs.build(kind))}
    assert found == {"modernbert-mean"}
