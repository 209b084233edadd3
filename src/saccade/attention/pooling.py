"""Pooling: a patch gets the average of its neighbourhood minus itself; nothing is learned and nothing looked at."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.attention.base import Attention
from saccade.attention.initial import GeneratorOf
from saccade.attention.parts import at_least_float32, coordinates, off_grid, onto_grid, require_whole, visible_ids
from saccade.attention.tokens import Tokens


class Pooling(Attention):
    """A patch gets the average of its neighbourhood minus itself: AvgPool(X) - X on the grid, nothing to learn.

    The average is of the patches that are there and visible, so a patch without such neighbours gets 0. A prefix token
    has no place on the grid: it gets the average of all visible patches minus itself, which is ours. Heads mean
    nothing here.

    Args:
        pool_size: side of the neighbourhood, odd.
    """

    paper = "Yu et al. 2021 (MetaFormer), https://arxiv.org/abs/2111.11418"
    cost = "N D"
    any_length = True
    free_of_order = False
    needs_grid = True
    exact_when = "never"

    def __init__(self, dim: int, num_heads: int, tokens: Tokens, *, layer: int = 0, pool_size: int = 3) -> None:
        require_whole("pooling", 3, pool_size=pool_size)
        if pool_size % 2 == 0:
            raise ValueError(
                f"pooling(pool_size={pool_size}): pool_size must be odd, so that a patch is in the middle of its "
                "neighbourhood"
            )
        super().__init__(dim, num_heads, tokens, layer=layer)
        self.pool_size = pool_size

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
    ) -> Float[Tensor, "b m w"]:
        """Averages in float32 at least, and subtracts."""
        values = at_least_float32(x)
        visible = values[:, self.tokens.prefix :]
        everywhere = visible.mean(1, keepdim=True).expand(-1, self.tokens.prefix, -1)
        nearby = averaged_around(visible, patches, self.tokens, self.pool_size)
        y = (torch.cat([everywhere, nearby], dim=1) - values).to(x.dtype)
        return y if outputs is None else y[:, outputs]

    def reference(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None) -> Float[Tensor, "b n w"]:
        """A matrix of weights for all pairs of tokens: 1 / (tokens averaged) where one is averaged, minus the unit."""
        ids = visible_ids(self.tokens, patches, x.device)
        prefix = self.tokens.prefix
        averaged = torch.nn.functional.pad(self._near(ids), (prefix, 0, prefix, 0))
        averaged[:, :prefix, prefix:] = True
        weights = averaged.to(x.dtype) / averaged.sum(2, keepdim=True)
        return torch.einsum("bij,bjw->biw", weights.expand(len(x), -1, -1), x) - x

    def _near(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p p"]:
        """Whether patch j (last dimension) lies in the neighbourhood of patch i, by their ids."""
        rows, columns = coordinates(self.tokens, ids)
        down, right = (place[:, :, None] - place[:, None] for place in (rows, columns))
        return torch.maximum(down.abs(), right.abs()) <= self.pool_size // 2

    def flops(self, patches: int, rows: int | None = None) -> int:
        """Additions alone, which do not count."""
        return 0

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """The neighbourhood; of a lone patch not even itself, and of a prefix token all patches and itself."""
        ids = torch.arange(self.tokens.patches) if patches is None else patches.cpu()
        near = self._near(ids[None])[0]
        near &= near.sum(1, keepdim=True) > 1
        prefix = self.tokens.prefix
        reach = torch.nn.functional.pad(near, (prefix, 0, prefix, 0))
        reach[:prefix, prefix:] = True
        return reach | torch.nn.functional.pad(torch.eye(prefix, dtype=torch.bool), (0, len(ids), 0, len(ids)))

    @property
    def order_free(self) -> bool:
        """Only where every neighbourhood is the whole grid."""
        return self.pool_size // 2 >= max(self.tokens.grid) - 1

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """There are none."""


def averaged_around(
    x: Float[Tensor, "b p w"], patches: Int[Tensor, "b p"] | None, tokens: Tokens, side: int
) -> Float[Tensor, "b p w"]:
    """Of each patch the average of the visible patches in the side x side places around it, itself among them."""
    if patches is None:
        return _pooled(x, None, tokens, side)
    # Hidden patches are zeros on the grid: they add nothing to the sum, and are not counted.
    total, count = (_pooled(y, patches, tokens, side, divisor=1) for y in (x, torch.ones_like(x[..., :1])))
    return total / count


def _pooled(
    x: Float[Tensor, "b p w"], patches: Int[Tensor, "b p"] | None, tokens: Tokens, side: int, divisor: int | None = None
) -> Float[Tensor, "b p w"]:
    """The sum over the places around each patch, divided by how many of them are on the grid, or by `divisor`."""
    maps = onto_grid(x, patches, tokens).unflatten(1, tokens.grid).permute(0, 3, 1, 2)
    pooled = torch.nn.functional.avg_pool2d(
        maps, side, stride=1, padding=side // 2, count_include_pad=False, divisor_override=divisor
    )
    return off_grid(pooled.flatten(2).mT, patches)
