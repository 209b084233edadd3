"""What a layer keeps for its backward pass is told by layer, as an image's share."""

import pytest
import torch

from saccade.measurement.kept import BETWEEN, kept_by_layer
from saccade.measurement.memory.predict import predicted_step
from saccade.measurement.operations import layers
from saccade.measurement.subject import Subject
from saccade.models.sizes import create_model


def kept(**options):
    subject = Subject(**{"model": "vit_nano_patch1_8", "batch_size": 4, **options})
    with torch.device("meta"):
        model = create_model(subject.model, subject.attention, **subject.options)
    return kept_by_layer(subject, [row.name for row in layers(model)]), subject


@pytest.mark.parametrize("model", ["vit_nano_patch1_8", "mae_nano_patch1_8"])
def test_layers_and_what_is_between_them_sum_to_the_prediction(model):
    by_layer, subject = kept(model=model)
    assert sum(by_layer.values()) == pytest.approx(predicted_step(subject).kept_bytes / 4)
    assert all(size >= 0 for size in by_layer.values())


def test_a_small_mlp_by_hand():
    """Below the sizes at which norms and MLPs keep less: the plain formulas."""
    by_layer, _ = kept()
    # Before the GELU and behind it, 65 tokens of 4 x 32 numbers each; its output is added to the shortcut and not kept.
    assert by_layer["blocks.0.mlp"] == 4 * 65 * 2 * 128
    # The normalised tokens, which the projections multiply, and a mean and a deviation for each.
    assert by_layer["blocks.0.norm1"] == 4 * 65 * (32 + 2)
    assert by_layer[BETWEEN] > 0


def test_bf16_keeps_about_half():
    whole, half = (sum(kept(dtype=dtype)[0].values()) for dtype in ("fp32", "bf16"))
    assert 0.45 < half / whole < 0.75


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="pooled head"):
        kept(options={"global_pool": ""})
