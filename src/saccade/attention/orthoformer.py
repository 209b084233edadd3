"""Orthoformer attention: every token looks at a few queries that are as unlike as possible, and these at all tokens."""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import unseeded
from saccade.attention.parts import at_least_float32, require_whole, softmax_attention, without_autocast
from saccade.attention.tokens import Tokens

# More than any |cos|: what is chosen is not chosen again.
_CHOSEN = 2.0


class Orthoformer(MultiHead):
    """Every token looks at a few queries as unlike as possible, these at all tokens: softmax(QLᵀ) (softmax(LKᵀ) V).

    The landmarks L of an image and head are queries of its own: first the longest, then again and again the one whose
    largest |cos| to those chosen before is smallest. No gradient passes through them. The paper starts from a query
    drawn at random; ours has the same output each time. 1/√e stands in both softmaxes.

    Args:
        landmarks: queries chosen, prefix tokens' among them.
    """

    paper = "Patrick et al. 2021, https://arxiv.org/abs/2106.05392"
    cost = "N M D"
    any_length = False
    free_of_order = True
    needs_grid = False
    exact_when = "never"
    chooses: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        landmarks: int = 8,
        **shared: Unpack[Shared],
    ) -> None:
        require_whole("orthoformer", 1, landmarks=landmarks)
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.landmarks = landmarks
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """By this layer's number of landmarks."""
        return orthoformer_attention(q, k, v, self.landmarks)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """At each step the similarities of all queries to all chosen ones; then both maps as they are."""
        lengths = q.detach().square().sum(-1).sqrt()
        unit = q.detach() / lengths[..., None].clamp_min(1e-12)
        cosines = torch.einsum("bhie,bhje->bhij", unit, unit).abs()
        chosen = lengths == lengths.amax(-1, keepdim=True)
        for _ in range(self.landmarks - 1):
            nearest = cosines.masked_fill(~chosen[:, :, None], 0.0).amax(-1)
            best = nearest.masked_fill(chosen, torch.inf).argmin(-1, keepdim=True)
            chosen = chosen.scatter(-1, best, True)
        marks = q.detach()[chosen].view(*q.shape[:2], self.landmarks, -1)
        k1, k2 = (
            torch.softmax(torch.einsum("bhie,bhje->bhij", left, right) / self.head_dim**0.5, dim=-1)
            for left, right in ((q, marks), (marks, k))
        )
        return (k1 @ k2) @ v

    def mix_flops(self, patches: int, rows: int) -> int:
        """A similarity of every query to each landmark but the last, and four thin products."""
        n = self.tokens.prefix + patches
        return 2 * n * (self.landmarks - 1) * self.dim + 8 * n * self.landmarks * self.dim

    def refusal(self, patches: int) -> str | None:
        """As many landmarks as tokens are more work than softmax, and not softmax."""
        n = self.tokens.prefix + patches
        return _refusal(self.landmarks, n) if self.landmarks >= n else None

    @property
    def mix_order_free(self) -> bool:
        """What is chosen does not depend on where it stands."""
        return True

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """A quarter of the patches, eight at most."""
        return {"landmarks": max(1, min(8, patches // 4))}


def orthoformer_attention(
    q: Float[Tensor, "b h n e"], k: Float[Tensor, "b h s e"], v: Float[Tensor, "b h s e"], landmarks: int
) -> Float[Tensor, "b h n e"]:
    """softmax(QLᵀ/√e) (softmax(LKᵀ/√e) V), L the rows of Q that `greedy_landmarks` names.

    Raises:
        ValueError: as many landmarks as queries, or more.
    """
    places = greedy_landmarks(q, landmarks)[..., None].expand(-1, -1, -1, q.shape[-1])
    marks = q.detach().gather(2, places)
    return softmax_attention(q, marks, softmax_attention(marks, k, v))


@torch.no_grad()
def greedy_landmarks(q: Float[Tensor, "b h n e"], landmarks: int) -> Int[Tensor, "b h m"]:
    """Which queries are the landmarks of each head, ascending.

    First the longest; then at each step the one whose largest |cos| to those chosen before is smallest.

    Raises:
        ValueError: as many landmarks as queries, or more.
    """
    if landmarks >= q.shape[2]:
        raise ValueError(_refusal(landmarks, q.shape[2]))
    with without_autocast(q.device):
        heads = at_least_float32(q).flatten(0, 1)
        lengths = heads.norm(dim=-1, keepdim=True)
        unit = heads / lengths.clamp_min(1e-12)
        chosen = [lengths.argmax(1)]
        # The largest |cos| so far is kept: at each step only the last one chosen is new.
        nearest = torch.zeros_like(lengths).squeeze(-1)
        for _ in range(landmarks - 1):
            last = unit.gather(1, chosen[-1][..., None].expand(-1, -1, unit.shape[-1]))
            nearest = torch.maximum(nearest, (unit @ last.mT).squeeze(-1).abs())
            nearest = nearest.scatter(1, chosen[-1], _CHOSEN)
            chosen.append(nearest.argmin(1, keepdim=True))
    return torch.cat(chosen, dim=1).sort(1).values.unflatten(0, q.shape[:2])


def _refusal(landmarks: int, count: int) -> str:
    allowed = f"must be 1..{count - 1}" if count > 1 else "need at least 2 tokens"
    return (
        f"orthoformer(landmarks={landmarks}) on {count} tokens: landmarks {allowed}; "
        "more would be more work than softmax, and not softmax"
    )
