"""Compositional attention: what a head searches for and what it retrieves are no fixed pair, each token chooses."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.attention.base import Attention
from saccade.attention.initial import GeneratorOf, fill_xavier, unseeded
from saccade.attention.parts import require_whole
from saccade.attention.tokens import Tokens

Rule = Literal["qk", "linear"]


class Compositional(Attention):
    """Each of S searches retrieves each of R values, and a token chooses: Σ_r p_sr A_s V_r with A_s = softmax(QKᵀ/√e).

    The searches are the heads. A value V_r has D/R channels, and p is a softmax over the R retrievals of one search and
    token. All of A_s V_r are computed: S times the values of a usual attention.

    Args:
        retrievals: R; "heads" for as many as there are heads.
        rule: what is put through that softmax. "qk" is the paper's q̂·W(A_s V_r)/√e with a second query q̂ of D/S
            channels for each search. "linear" is w·[A_s V_r; q̂] + b, as in xFormers, where all but the first part
            of w adds the same number for every r: it is kept as published, but changes nothing and is not computed.
        share_qkv: one matrix for queries, keys and values, as is xFormers' default.
        bias: a bias on every projection.
    """

    paper = "Mittal et al. 2021, https://arxiv.org/abs/2110.09419"
    cost = "N² D H"
    any_length = True
    free_of_order = True
    needs_grid = False
    exact_when = "one head and retrievals=1"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        retrievals: int | Literal["heads"] = "heads",
        rule: Rule = "qk",
        share_qkv: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__(dim, num_heads, tokens, layer=layer)
        self.retrievals = num_heads if retrievals == "heads" else retrievals
        require_whole("compositional", 1, retrievals=self.retrievals)
        if dim % self.retrievals:
            raise ValueError(
                f"compositional(retrievals={retrievals}) on width {dim}: the number of retrievals must divide the width"
            )
        if rule not in ("qk", "linear"):
            raise ValueError(f'compositional(rule={rule!r}): rule must be "qk" or "linear"')
        self.rule, self.share_qkv = rule, share_qkv
        self.head_dim, self.value_dim = dim // num_heads, dim // self.retrievals
        self.qkv = nn.Linear(dim, dim if share_qkv else 3 * dim, bias=bias)
        self.select_q = nn.Linear(dim, dim, bias=bias)
        if rule == "qk":
            self.select = nn.Linear(self.value_dim, self.head_dim, bias=bias)
        else:
            self.select = nn.Linear(self.value_dim + self.head_dim, 1, bias=bias)
        self.proj = nn.Linear(num_heads * self.value_dim, dim, bias=bias)
        self.reset_parameters(unseeded)

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
    ) -> Float[Tensor, "b m w"]:
        """Searches and retrieves, chooses, projects; for the wanted rows alone."""
        retrieved = retrieve(*self._split(x, outputs), self.retrievals)
        y = chosen(retrieved, self._directions(x if outputs is None else x[:, outputs]))
        return self.proj(y.transpose(1, 2).flatten(2))

    def _split(
        self, x: Float[Tensor, "b n w"], outputs: slice | None
    ) -> tuple[Float[Tensor, "b s m e"], Float[Tensor, "b s n e"], Float[Tensor, "b n w"]]:
        """Queries of the wanted rows and keys of all, by search; values of all."""
        if outputs is None or self.share_qkv:
            y = self.qkv(x)
            q, k, v = (y, y, y) if self.share_qkv else y.chunk(3, dim=-1)
            return self._searches(q if outputs is None else q[:, outputs]), self._searches(k), v
        sizes = (self.dim, 2 * self.dim)
        weight_q, weight_kv = self.qkv.weight.split(sizes)
        bias_q, bias_kv = (None, None) if self.qkv.bias is None else self.qkv.bias.split(sizes)
        k, v = nn.functional.linear(x, weight_kv, bias_kv).chunk(2, dim=-1)
        return self._searches(nn.functional.linear(x[:, outputs], weight_q, bias_q)), self._searches(k), v

    def _searches(self, y: Float[Tensor, "b n w"]) -> Float[Tensor, "b s n e"]:
        return y.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _directions(self, x: Float[Tensor, "b m w"]) -> Float[Tensor, "#b #s #m f"]:
        """What a retrieval is multiplied with to give its score, up to what is the same for all retrievals."""
        if self.rule == "linear":
            return self.select.weight[:, None, None, : self.value_dim]
        # W is put on the query's side, where there is one vector for all retrievals.
        return self._searches(self.select_q(x)) @ (self.select.weight * self.head_dim**-0.5)

    def reference(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None) -> Float[Tensor, "b n w"]:
        """Every search with every value, and every score with all its terms."""
        y = self.qkv(x)
        q, k, v = (y, y, y) if self.share_qkv else y.chunk(3, dim=-1)
        q, k, select_q = (z.unflatten(-1, (self.num_heads, self.head_dim)) for z in (q, k, self.select_q(x)))
        weights = torch.einsum("bise,bjse->bsij", q, k).div(self.head_dim**0.5).softmax(-1)
        retrieved = torch.einsum("bsij,bjrf->bisrf", weights, v.unflatten(-1, (self.retrievals, self.value_dim)))
        if self.rule == "qk":
            scores = torch.einsum("bise,bisre->bisr", select_q, self.select(retrieved)) / self.head_dim**0.5
        else:
            repeated = select_q[:, :, :, None].expand(-1, -1, -1, self.retrievals, -1)
            scores = self.select(torch.cat([retrieved, repeated], dim=-1))[..., 0]
        return self.proj(torch.einsum("bisr,bisrf->bisf", scores.softmax(-1), retrieved).flatten(2))

    def flops(self, patches: int, rows: int | None = None) -> int:
        """Projections, the scores of all pairs, and all values for each search; the choice multiplies no matrices."""
        n = self.tokens.prefix + patches
        wanted = n if rows is None else rows
        inputs = n if self.share_qkv else wanted + 2 * n
        searched = wanted * n * self.dim * (1 + self.num_heads)
        directions = wanted * self.dim * (self.dim + self.value_dim) if self.rule == "qk" else 0
        output = wanted * self.num_heads * self.value_dim * self.dim
        return 2 * (inputs * self.dim**2 + searched + directions + output)

    @property
    def order_free(self) -> bool:
        """Softmax sees a set."""
        return True

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Xavier's uniform for each projection, zeros for biases."""
        for name, matrices in (("qkv", 1 if self.share_qkv else 3), ("select_q", 1), ("select", 1), ("proj", 1)):
            linear = getattr(self, name)
            fill_xavier(linear.weight, generator_of(f"{name}.weight"), matrices)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)


def retrieve(
    q: Float[Tensor, "b s m e"], k: Float[Tensor, "b s n e"], v: Float[Tensor, "b n w"], retrievals: int
) -> Float[Tensor, "b s m r f"]:
    """softmax(QKᵀ/√e) V_r for every search and every value, a value being so many neighbouring channels of v."""
    weights = torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, dim=-1)
    # One product for all searches, since they look at the same values.
    retrieved = weights.flatten(1, 2) @ v
    return retrieved.unflatten(2, (retrievals, -1)).unflatten(1, weights.shape[1:3])


def chosen(retrieved: Float[Tensor, "b s m r f"], directions: Float[Tensor, "#b #s #m f"]) -> Float[Tensor, "b s m f"]:
    """Σ_r p_r retrieved_r, where p is the softmax over r of the products with the direction."""
    # Products of a handful of rows: elementwise is 4 x faster than a matrix product for every token.
    scores = (retrieved * directions[..., None, :]).sum(-1, keepdim=True)
    return (scores.softmax(-2) * retrieved).sum(-2)
