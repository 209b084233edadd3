"""xFormers' mixings of a grid of tokens: pooling and large-kernel convolutions, on whole tokens without heads."""

from __future__ import annotations

import math
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from saccade.attention.pooling import averaged_around
from saccade.attention.tokens import Tokens
from saccade.compat.xformers.base import Attention
from saccade.compat.xformers.masks import AttentionMask


class _OnGrid(Attention):
    """A mixing of whole tokens on a grid; k and v are not looked at.

    Args:
        grid: rows and columns, where they are not equal.
    """

    requires_input_projection: ClassVar[bool] = False
    requires_skip_multi_head: ClassVar[bool] = True
    requires_squared_context: ClassVar[bool] = True
    requires_same_k_q_dimensions: ClassVar[bool] = True

    def __init__(self, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.grid = grid

    def tokens(self, count: int) -> Tokens:
        """The grid of so many tokens.

        Raises:
            ValueError: they fill none.
        """
        grid = self.grid or (math.isqrt(count), math.isqrt(count))
        if grid[0] * grid[1] != count:
            raise ValueError(
                f"{type(self).__name__}(grid={self.grid}) was given {count} tokens: they must fill the grid, which is "
                "square unless grid=(rows, columns) says how it is; take cls off before"
            )
        return Tokens(grid)


class Pooling(_OnGrid):
    """AvgPool(Q) - Q on the grid, the average of what is there. Repaired: grids that are not square can be named.

    xFormers overlooked `padding`, and a stride other than 1 failed in the middle; both are refused.

    Args:
        pool_size: side of the neighbourhood; odd.
        stride: 1.
        padding: pool_size // 2.
        grid: rows and columns, where they are not equal.
    """

    def __init__(
        self,
        pool_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        *,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(grid)
        if pool_size < 1 or pool_size % 2 == 0:
            raise ValueError(f"Pooling(pool_size={pool_size}): must be odd and at least 1")
        if stride != 1:
            raise ValueError(f"Pooling(stride={stride}): must be 1, or there would be fewer tokens behind than before")
        if padding not in (None, pool_size // 2):
            raise ValueError(f"Pooling(pool_size={pool_size}, padding={padding}): must be {pool_size // 2}")
        self.pool_size = pool_size

    def attend(
        self,
        q: Float[Tensor, "b n w"],
        k: Float[Tensor, "b n w"],
        v: Float[Tensor, "b n w"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "b n w"]:
        """The average minus the token itself."""
        return averaged_around(q, None, self.tokens(q.shape[1]), self.pool_size) - q


class _LargeKernel(nn.Module):
    """U ⊙ W C′(C U): C of 5 x 5 and C′ of 7 x 7 with gaps of 3, each channel alone."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv_spatial = nn.Conv2d(dim, dim, 7, padding=9, groups=dim, dilation=3)
        self.conv1 = nn.Conv2d(dim, dim, 1)

    def forward(self, u: Float[Tensor, "b w y x"]) -> Float[Tensor, "b w y x"]:
        return u * self.conv1(self.conv_spatial(self.conv0(u)))


class Visual(_OnGrid):
    """Q + W₂ LKA(GELU(W₁ Q)) on the grid, as in xFormers, whose weights it takes. Grids need not be square.

    Inside a block with a shortcut the input is added twice, as there and in the paper's own code.

    Args:
        dim_model: width of a token.
        grid: rows and columns, where they are not equal.
    """

    def __init__(self, dim_model: int, *, grid: tuple[int, int] | None = None) -> None:
        super().__init__(grid)
        self.block = nn.Sequential(
            nn.Conv2d(dim_model, dim_model, 1), nn.GELU(), _LargeKernel(dim_model), nn.Conv2d(dim_model, dim_model, 1)
        )

    def attend(
        self,
        q: Float[Tensor, "b n w"],
        k: Float[Tensor, "b n w"],
        v: Float[Tensor, "b n w"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "b n w"]:
        """Convolutions, and the input beside them."""
        maps = q.mT.unflatten(2, self.tokens(q.shape[1]).grid)
        return q + self.block(maps).flatten(2).mT
