"""cosFormer: linear attention whose weights fall with the distance of the patches, as a cosine."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import unseeded
from saccade.attention.parts import at_least_float32, coordinates, visible_ids, without_autocast
from saccade.attention.tokens import Tokens

# OpenNLPLab's cosformer.py.
EPSILON = 1e-6


class CosFormer(MultiHead):
    """Linear attention whose weights fall with distance: relu(q_i)·relu(k_j) cos(π(i - j) / 2L), divided by their sum.

    i and j are ids on the whole grid of L patches, not places among the visible ones, and distance is that in raster
    order: the last patch of a row is next to the first of the row below. Prefix tokens have no place; their weights are
    relu(q_i)·relu(k_j) both ways. There is no 1/√e. A row whose weights are all 0 gives 0, and passes no gradient on.

    Args:
        two_d: the product of one cosine along the rows of the grid and one along its columns.
    """

    paper = "Qin et al. 2022, https://arxiv.org/abs/2202.08791"
    cost = "N D² / H"
    any_length = True
    free_of_order = False
    needs_grid = False
    exact_when = "never"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        two_d: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.two_d = two_d
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """The function below, at the angles of the visible patches."""
        return cosformer_attention(q, k, v, self._angles(patches, at_least_float32(q)))

    def _angles(self, patches: Int[Tensor, "b p"] | None, like: Tensor) -> Float[Tensor, "#b p a"]:
        """From 0 to below π/2 along each axis that counts; device and dtype as those of `like`."""
        ids = visible_ids(self.tokens, patches, like.device)
        if not self.two_d:
            return (ids.to(like.dtype) * (math.pi / 2 / self.tokens.patches))[..., None]
        places = zip(coordinates(self.tokens, ids), self.tokens.grid, strict=True)
        return torch.stack([place.to(like.dtype) * (math.pi / 2 / side) for place, side in places], dim=-1)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Every weight, times the cosine of the distance."""
        prefix, grid = self.tokens.prefix, self.tokens.grid
        ids = visible_ids(self.tokens, patches, q.device)
        places = ((ids // grid[1], grid[0]), (ids % grid[1], grid[1])) if self.two_d else ((ids, self.tokens.patches),)
        cosines = torch.ones(1, q.shape[2], q.shape[2], dtype=q.dtype, device=q.device)
        for place, side in places:
            apart = (place[:, :, None] - place[:, None]).to(q) * (math.pi / (2 * side))
            cosines = cosines * torch.nn.functional.pad(apart.cos(), (prefix, 0, prefix, 0), value=1.0)
        weights = torch.einsum("bhie,bhje->bhij", q.relu(), k.relu()) * cosines[:, None]
        return torch.einsum("bhij,bhje->bhie", weights, v) / weights.sum(-1, keepdim=True).clamp_min(EPSILON)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Of the cheaper order."""
        return min(flops_of_orders(self.tokens.prefix, patches, 4 if self.two_d else 2, self.head_dim, self.dim))

    @property
    def mix_order_free(self) -> bool:
        """Only where there is one place."""
        return self.tokens.patches == 1


def cosformer_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    angles: Float[Tensor, "#b p a"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """Σ_j w_ij v_j / max(Σ_j w_ij, 1e-6) with w_ij = relu(q_i)·relu(k_j) times the cosines; float32 at least.

    Args:
        q: queries.
        k: keys.
        v: values.
        angles: of the last p tokens along each of one or two axes; those in front of them have no place. None means one
            axis on which all tokens stand in a row, as in the paper.
    """
    if angles is None:
        place = torch.arange(q.shape[2], device=q.device, dtype=at_least_float32(q).dtype)
        angles = (place * (math.pi / 2 / q.shape[2]))[None, :, None]
    patches, axes = angles.shape[1:]
    prefix, width = q.shape[2] - patches, q.shape[3]
    pairs, state = flops_of_orders(prefix, patches, 2**axes, width, width)
    with without_autocast(q.device):
        wide_q, wide_k = at_least_float32(q).relu(), at_least_float32(k).relu()
        order = by_pairs if pairs < state else by_state
        return order(wide_q, wide_k, at_least_float32(v), angles.to(wide_q.dtype)).to(v.dtype)


def flops_of_orders(prefix: int, patches: int, waves: int, head_dim: int, dim: int) -> tuple[int, int]:
    """Floating-point operations of `by_pairs` and of `by_state`."""
    n = prefix + patches
    beside = 4 * dim * prefix * (n + patches)
    return 4 * dim * n**2, 4 * dim * patches * waves * (head_dim + 1) + beside


def by_pairs(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    angles: Float[Tensor, "#b p a"],
) -> Float[Tensor, "b h n e"]:
    """All weights at once: cheaper where there are few tokens."""
    prefix = q.shape[2] - angles.shape[1]
    cosines = (angles[:, :, None] - angles[:, None]).cos().prod(-1)
    weights = q @ k.mT * torch.nn.functional.pad(cosines, (prefix, 0, prefix, 0), value=1.0)[:, None]
    return weights @ v / weights.sum(-1, keepdim=True).clamp_min(EPSILON)


def by_state(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    angles: Float[Tensor, "#b p a"],
) -> Float[Tensor, "b h n e"]:
    """Σ_f f(i) q_i (Σ_j f(j) k_j v_jᵀ) over the waves f whose products sum to the cosines of the distances.

    Patches see prefix tokens, and these see all, pair by pair.
    """
    prefix = q.shape[2] - angles.shape[1]
    (q_prefix, q), (k_prefix, k_patches), (v_prefix, v_patches) = (x.tensor_split([prefix], dim=2) for x in (q, k, v))
    waves = _waves(angles)[:, None]
    # The waves go onto the values: neither queries nor keys are kept once for each wave.
    states = k_patches.mT @ (waves[..., None] * v_patches[..., None, :]).flatten(-2)
    sums = k_patches.mT @ waves
    rows = ((q @ states).unflatten(-1, (waves.shape[-1], -1)) * waves[..., None]).sum(-2)
    total = (q @ sums * waves).sum(-1, keepdim=True)
    if not prefix:
        return rows / total.clamp_min(EPSILON)
    to_prefix = q @ k_prefix.mT
    rows, total = rows + to_prefix @ v_prefix, total + to_prefix.sum(-1, keepdim=True)
    weights = q_prefix @ k.mT
    rows_of_prefix = weights @ v / weights.sum(-1, keepdim=True).clamp_min(EPSILON)
    return torch.cat([rows_of_prefix, rows / total.clamp_min(EPSILON)], dim=2)


def _waves(angles: Float[Tensor, "#b p a"]) -> Float[Tensor, "#b p f"]:
    """Cosine and sine of the one angle, or the four products of those of both; the cosine of a difference is their sum.

    cos(s - t) = cos s cos t + sin s sin t.
    """
    first, *others = torch.stack([angles.cos(), angles.sin()], dim=-1).unbind(-2)
    for other in others:
        first = (first[..., None] * other[..., None, :]).flatten(-2)
    return first
