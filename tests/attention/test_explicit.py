"""Explicit softmax attention in tiles: the values and gradients of the plain formula."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from saccade.attention import explicit
from saccade.attention.explicit import explicit_attention


@pytest.fixture
def tiny_tiles(monkeypatch):
    """Tiles of two heads of 9 x 9 float64 weights, the last one of one head."""
    monkeypatch.setattr(explicit, "WHOLE_BYTES", 0)
    monkeypatch.setattr(explicit, "TILE_BYTES", 2 * 9 * 9 * 8)


def given(rows: int = 9, columns: int = 9, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    shapes = ((3, 3, rows, 4), (3, 3, columns, 4), (3, 3, columns, 4))
    return tuple(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)


def gradients(y: torch.Tensor, parts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return torch.autograd.grad((y * weights).sum(), parts)


@pytest.mark.usefixtures("tiny_tiles")
@pytest.mark.parametrize(("rows", "columns"), [(9, 9), (1, 9), (5, 13), (40, 3)])
def test_in_tiles_it_is_torch_s_attention(rows, columns):
    parts = given(rows, columns)
    found, expected = explicit_attention(*parts), scaled_dot_product_attention(*parts)
    assert_close(found, expected)
    assert_close(gradients(found, parts), gradients(expected, parts))


def test_in_one_piece_it_is_torch_s_attention():
    parts = given()
    assert_close(explicit_attention(*parts), scaled_dot_product_attention(*parts))


@pytest.mark.usefixtures("tiny_tiles")
def test_its_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(explicit_attention, given(3, 4))


@pytest.mark.usefixtures("tiny_tiles")
def test_tiles_keep_no_weights_for_backward():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda kept: kept
    ):
        explicit_attention(*given(40, 40))
    assert max(kept) == 3 * 3 * 40 * 4


@pytest.mark.usefixtures("tiny_tiles")
def test_bf16_in_tiles_is_bf16_in_one_piece(monkeypatch):
    parts = given(dtype=torch.bfloat16)
    in_tiles = explicit_attention(*parts)
    monkeypatch.setattr(explicit, "WHOLE_BYTES", 2**30)
    assert in_tiles.dtype == torch.bfloat16
    assert torch.equal(in_tiles, explicit_attention(*parts))
