"""What sparse mechanisms are held against: a mask made pair by pair from places on the grid, and torch's attention."""

from collections.abc import Callable

import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saccade.attention import Tokens
from saccade.attention.base import MultiHead

DIM, HEADS = 16, 2

# Grid, prefix and visible patches: with so many that buckets are made, and with so few that all pairs are less work.
SIZES = [((14, 14), 1, None), ((12, 15), 0, None), ((13, 11), 2, None), ((14, 15), 1, 190), ((14, 14), 1, 49)]


def mask_of(tokens: Tokens, ids: Tensor, sees: Callable[[int, int, int, int], bool]) -> Tensor:
    """(B, N, N) from a predicate on the rows and columns of two patches; the prefix is dense."""
    count = tokens.prefix + ids.shape[1]
    mask = torch.ones(len(ids), count, count, dtype=torch.bool)
    places = [[divmod(int(patch), tokens.grid[1]) for patch in image] for image in ids]
    for image, own in enumerate(places):
        rows = [[sees(*i, *j) for j in own] for i in own]
        mask[image, tokens.prefix :, tokens.prefix :] = torch.tensor(rows)
    return mask


def masked_softmax(layer: MultiHead, x: Tensor, ids: Tensor | None, mask: Tensor) -> Tensor:
    """torch's attention with the mask, between the layer's projections."""
    q, k, v = layer.split(x, ids)
    return layer.merge(torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None]))


def agrees(attention: str, grid: tuple[int, int], prefix: int, patches: int | None, sees: Callable[..., bool]) -> None:
    """Asserts that the layer is torch's masked attention, outputs and gradients, and reaches what the mask allows."""
    tokens = Tokens(grid, prefix)
    layer = lively(attention, DIM, HEADS, tokens)
    ids = None if patches is None else visible(2, tokens, patches)
    every = torch.arange(tokens.patches)[None] if ids is None else ids
    x = images(2, prefix + every.shape[1], DIM).requires_grad_()
    mask = mask_of(tokens, every, sees)
    y, expected = layer(x, ids), masked_softmax(layer, x, ids, mask)
    leaves = [x, layer.qkv.weight, layer.qkv.bias, layer.proj.weight]
    assert_close(y, expected)
    assert_close(slopes(y, leaves), slopes(expected, leaves))
    assert torch.equal(layer.reach(None if ids is None else ids[0]), mask[0])


def agrees_in_half_precision_where(attention: str, grid: tuple[int, int], seen: Callable[[int, int], bool]) -> None:
    """Asserts that in bf16, with the patches for which `seen` holds alone and no prefix, all is near and finite.

    There a row of scores may be without any visible patch, and torch's own kernel, which forgives that, is not used.
    """
    tokens = Tokens(grid)
    ids = torch.tensor([patch for patch in range(tokens.patches) if seen(*divmod(patch, grid[1]))])[None]
    half = lively(attention, DIM, HEADS, tokens).bfloat16()
    exact = lively(attention, DIM, HEADS, tokens).bfloat16().float()
    x = images(1, ids.shape[1], DIM).bfloat16().requires_grad_()
    wide = x.detach().float().requires_grad_()
    y, expected = half(x, ids), exact.reference(wide, ids)
    for near, far in ((y, expected), (slopes(y, [x])[0], slopes(expected, [wide])[0])):
        assert (near.float() - far).norm() < 0.02 * far.norm()


def largest_tensor(attention: str, tokens: Tokens) -> int:
    """Numbers of the largest tensor that one image, one head and width 4 make on the whole grid, there and back."""
    layer = lively(attention, 4, 1, tokens)
    x = images(1, tokens.count, 4).requires_grad_()
    with _Largest() as seen:
        layer(x).sum().backward()
    return seen.numbers


class _Largest(TorchDispatchMode):
    numbers = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        sizes = [
            leaf.untyped_storage().nbytes() // leaf.element_size()
            for leaf in tree_leaves(made)
            if isinstance(leaf, Tensor)
        ]
        self.numbers = max(self.numbers, *sizes, 0)
        return made
