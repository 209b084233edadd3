"""Fourier mixing against transformers' FNet and torch's own transforms."""

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from tests.peers import transformers
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.fnet.modeling_fnet import FNetBasicFourierTransform

from saccade.attention import Tokens, build
from saccade.attention.flops import _UNKNOWN_TO_TORCH

DIM, HEADS = 12, 3
NORMS = ["ortho", "backward", "forward"]


def assert_same(ours, theirs, x):
    """Checks output and gradient by the input."""
    x = x.clone().requires_grad_()
    assert_close(ours(x), theirs(x))
    assert_close(slopes(ours(x), [x]), slopes(theirs(x), [x]))


@pytest.mark.parametrize("dim", [12, 7, 1])
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_without_normalisation_it_is_fnet(dim, prefix):
    tokens = Tokens((3, 4), prefix)
    fnet = FNetBasicFourierTransform(transformers.FNetConfig(hidden_size=dim, use_tpu_fourier_optimizations=False))
    layer = build('fourier(norm="backward")', dim, 1, tokens)
    assert_same(layer, lambda x: fnet(x)[0], images(2, tokens.count, dim))


@pytest.mark.parametrize("norm", NORMS)
def test_its_norms_are_torchs(norm):
    layer = build(f'fourier(norm="{norm}")', DIM, HEADS, Tokens((3, 4), 1))
    assert_same(layer, lambda x: torch.fft.fft2(x, norm=norm).real, images(2, 13, DIM))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("grid", [(3, 4), (4, 4), (1, 5), (5, 1)])
def test_in_two_dimensions_it_is_a_transform_over_rows_columns_and_channels(norm, grid):
    tokens = Tokens(grid)

    def transform(x):
        whole = torch.fft.fftn(x.unflatten(1, grid), dim=(1, 2, 3), norm=norm)
        return whole.real.flatten(1, 2)

    layer = build(f'fourier(two_d=True,norm="{norm}")', DIM, HEADS, tokens)
    assert_same(layer, transform, images(2, tokens.patches, DIM))


def test_beside_a_transform_in_two_dimensions_the_prefix_is_transformed_over_its_channels():
    layer, alone = (build("fourier(two_d=True)", DIM, HEADS, Tokens((3, 4), prefix)) for prefix in (2, 0))

    def transform(x):
        return torch.cat([torch.fft.fft(x[:, :2], norm="ortho").real, alone(x[:, 2:])], dim=1)

    assert_same(layer, transform, images(2, 14, DIM))


def test_with_heads_and_a_projection_it_is_the_form_of_xformers():
    layer = lively("fourier(per_head=True,out_proj=True)", DIM, HEADS, Tokens((3, 4), 1))

    def transform(x):
        heads = [torch.fft.fft2(head, norm="ortho").real for head in x.chunk(HEADS, dim=-1)]
        return torch.cat(heads, dim=-1) @ layer.proj.weight.T + layer.proj.bias

    assert_same(layer, transform, images(2, 13, DIM))


@pytest.mark.parametrize(("options", "dims"), [("", (1, 2)), ("(two_d=True)", (1, 2, 3))])
def test_hidden_patches_are_zeros_at_their_places(options, dims):
    tokens = Tokens((3, 4), prefix=0 if options else 2)
    ids, x = visible(2, tokens, 5), images(2, tokens.prefix + 5, DIM)

    def transform(x):
        whole = torch.zeros(2, tokens.count, DIM, dtype=x.dtype)
        places = torch.cat([torch.arange(tokens.prefix).expand(2, -1), tokens.prefix + ids], dim=1)
        whole = torch.stack([row.index_put((place,), seen) for row, place, seen in zip(whole, places, x, strict=True)])
        shape = whole if len(dims) == 2 else whole.unflatten(1, tokens.grid)
        y = torch.fft.fftn(shape, dim=dims, norm="ortho").real.reshape(2, tokens.count, DIM)
        return torch.stack([row[place] for row, place in zip(y, places, strict=True)])

    layer = build(f"fourier{options}", DIM, HEADS, tokens)
    assert_same(lambda x: layer(x, ids), transform, x)


def test_only_a_projection_is_learned():
    tokens = Tokens((3, 4), 1)
    assert not list(build("fourier", DIM, HEADS, tokens).parameters())
    projected = build("fourier(out_proj=True)", DIM, HEADS, tokens)
    assert sum(parameter.numel() for parameter in projected.parameters()) == DIM**2 + DIM


def test_its_gradient_has_gradients():
    layer = build("fourier", DIM, HEADS, Tokens((2, 2)))
    x = images(1, 4, DIM).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_backward_costs_as_much_as_forward():
    layer = build("fourier", 64, 4, Tokens((8, 8), 1))
    x = torch.randn(1, 65, 64, requires_grad=True)
    with FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 2 * layer.flops(64)


def test_the_default_norm_lets_no_image_grow_and_fnets_does():
    x = images(4, 65, 64)
    before = x.norm(dim=(1, 2))
    assert (build("fourier", 64, 1, Tokens((8, 8), 1))(x).norm(dim=(1, 2)) <= before).all()
    grown = build('fourier(norm="backward")', 64, 1, Tokens((8, 8), 1))(x).norm(dim=(1, 2)) / before
    assert_close(grown, torch.full_like(grown, (65 * 64 / 2) ** 0.5), rtol=0.1, atol=0)


def test_half_precision_is_transformed_in_float32():
    layer, x = build("fourier", 64, 1, Tokens((8, 8), 1)), images(2, 65, 64).bfloat16()
    assert torch.equal(layer(x), layer(x.float()).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x.float()).dtype == torch.float32


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm"):
        build('fourier(norm="unitary")', DIM, HEADS, Tokens((3, 4)))
