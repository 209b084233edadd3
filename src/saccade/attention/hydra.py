"""Hydra attention: as many heads as channels, so that each token is multiplied with one sum over all tokens."""

from __future__ import annotations

from typing import ClassVar, Unpack

from jaxtyping import Float, Int
from torch import Tensor

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import unseeded
from saccade.attention.parts import at_least_float32, require_off, without_autocast
from saccade.attention.tokens import Tokens

# torch.nn.functional.normalize's: a token of zeros stays zero.
EPSILON = 1e-12


class Hydra(MultiHead):
    """As many heads as channels: each token is multiplied with one sum, Q̂ ⊙ Σ K̂ ⊙ V, where Q̂ = Q/‖Q‖ and K̂ = K/‖K‖.

    The norms run over all channels of a token. `num_heads` is ignored: the layer is the same function for any number of
    heads that divides the width, and its parameters are the same. Nothing divides the sum, so it grows with the number
    of visible tokens that agree.

    Args:
        mean: divides the sum by the number of visible tokens, so that a masked autoencoder's few patches and the whole
            grid give outputs of one size. Ours: the paper knows no subsets.
    """

    paper = "Bolya et al. 2022, https://arxiv.org/abs/2209.07484"
    cost = "N D"
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
        mean: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        why = "its heads are one channel wide"
        require_off("hydra", why, rope=shared.get("rope", False), qk_norm=shared.get("qk_norm", False))
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.mean = mean
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """The function below; it sees a set."""
        return hydra_attention(q, k, v, self.mean)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Each channel a head of width 1: the weights q̂_i k̂_j of every pair of tokens."""
        q, k = (x / x.square().sum((1, 3), keepdim=True).sqrt().clamp_min(EPSILON) for x in (q, k))
        y = (q[:, :, :, None] * k[:, :, None] * v[:, :, None]).sum(3)
        return y / v.shape[2] if self.mean else y

    def mix_flops(self, patches: int, rows: int) -> int:
        """The sum over the tokens; the rest is elementwise."""
        return 2 * (self.tokens.prefix + patches) * self.dim

    @property
    def mix_order_free(self) -> bool:
        """A sum has no order."""
        return True


def hydra_attention(
    q: Float[Tensor, "b h m e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"], mean: bool = False
) -> Float[Tensor, "b h m e"]:
    """Q̂ ⊙ Σ K̂ ⊙ V with the norms over all channels, heads side by side; the sum, or its mean, in float32 at least."""
    dtype = v.dtype
    with without_autocast(q.device):
        q, k, v = at_least_float32(q), at_least_float32(k), at_least_float32(v)
        # The norms multiply what has been summed or will be: no normalised copy of q or k is kept.
        total = _inverse_norm(k).mT @ (k * v)
        total = total / v.shape[2] if mean else total
        return (q * total * _inverse_norm(q)).to(dtype)


def _inverse_norm(x: Float[Tensor, "b h n e"]) -> Float[Tensor, "b 1 n 1"]:
    """1 / ‖x‖ of each token, over the channels of all heads."""
    return x.transpose(1, 2).flatten(2).norm(dim=-1).clamp_min(EPSILON).reciprocal()[:, None, :, None]
