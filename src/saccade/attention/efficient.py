"""Efficient attention: queries and keys are normalised apart, so keys and values can be summed once."""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack

from jaxtyping import Float, Int
from torch import Tensor

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import unseeded
from saccade.attention.parts import at_least_float32, pairs_are_fewer, without_autocast
from saccade.attention.tokens import Tokens

Norm = Literal["softmax", "scale"]


class Efficient(MultiHead):
    """Queries and keys are normalised apart, then keys and values summed once: softmax_e(Q) (softmax_N(K)ᵀ V).

    The softmax of Q runs over the channels of a head, that of K over the visible tokens, channel by channel. So the
    N x N weights that are never formed sum to 1 in every row: there is no 1/√e and no normaliser.

    Args:
        norm: "softmax" is that; "scale" divides Q and K by √N instead, for N visible tokens.
    """

    paper = "Shen et al. 2021, https://arxiv.org/abs/1812.01243"
    cost = "N D² / H"
    any_length = True
    free_of_order = True
    needs_grid = False
    exact_when = "never"
    each_query_alone: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        norm: Norm = "softmax",
        **shared: Unpack[Shared],
    ) -> None:
        if norm not in ("softmax", "scale"):
            raise ValueError(f'efficient(norm={norm!r}): norm must be "softmax" or "scale"')
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.norm: Norm = norm
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """The function below; it sees a set."""
        return efficient_attention(q, k, v, self.norm)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Every weight, as the product of a query's row and a key's."""
        if self.norm == "scale":
            weights = (q / q.shape[2] ** 0.5) @ (k / k.shape[2] ** 0.5).mT
        else:
            q, k = (x.exp() / x.exp().sum(dim, keepdim=True) for x, dim in ((q, 3), (k, 2)))
            weights = q @ k.mT
        return weights @ v

    def mix_flops(self, patches: int, rows: int) -> int:
        """Of the cheaper order."""
        n = self.tokens.prefix + patches
        return 2 * self.dim * min(2 * rows * n, self.head_dim * (rows + n))

    @property
    def mix_order_free(self) -> bool:
        """A sum has no order, and neither has a softmax."""
        return True


def efficient_attention(
    q: Float[Tensor, "b h m e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"], norm: Norm = "softmax"
) -> Float[Tensor, "b h m e"]:
    """softmax_e(Q) (softmax_N(K)ᵀ V), or Q Kᵀ V / N, by the cheaper order of the two products; float32 at least."""
    rows, (n, e), dtype = q.shape[2], k.shape[2:], v.dtype
    with without_autocast(q.device):
        q, k, v = at_least_float32(q), at_least_float32(k), at_least_float32(v)
        if norm == "softmax":
            q, k = q.softmax(-1), k.softmax(-2)
        pairs = pairs_are_fewer(rows, n, e)
        # What "scale" divides by stands in the smaller of the two factors.
        first = q @ k.mT if pairs else k.mT @ v
        first = first / n if norm == "scale" else first
        return (first @ v if pairs else q @ first).to(dtype)
