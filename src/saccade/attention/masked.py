"""Masked: softmax attention in which a patch sees only some of the patches, which ones by their places on the grid."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.attention.base import MultiHead
from saccade.attention.parts import visible_ids


class Masked(MultiHead):
    """softmax(QKᵀ/√e) V over the allowed pairs of patches; prefix tokens see everything and are seen by everything.

    A subclass writes `allowed`, and a `mix` that computes no more than that needs.
    """

    @abstractmethod
    def allowed(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p p"]:
        """Whether patch i (row) sees patch j (column), by their ids; every patch sees itself."""

    def mask(self, patches: Int[Tensor, "b p"] | None, device: torch.device | None = None) -> Bool[Tensor, "b n n"]:
        """`allowed` with the prefix in front; one for all images where every patch is there."""
        ids = visible_ids(self.tokens, patches, device)
        return torch.nn.functional.pad(self.allowed(ids), (self.tokens.prefix, 0, self.tokens.prefix, 0), value=True)

    def added(self, ids: Int[Tensor, "b p"]) -> Float[Tensor, "b h p p"] | None:
        """What is added to the scores of patches i and j; most add nothing."""
        return None

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Every score, and those of forbidden pairs thrown away."""
        scores = torch.einsum("bhie,bhje->bhij", q, k) / self.head_dim**0.5
        if (added := self.added(visible_ids(self.tokens, patches, q.device))) is not None:
            scores = scores + torch.nn.functional.pad(added, (self.tokens.prefix, 0, self.tokens.prefix, 0))
        scores = scores.masked_fill(~self.mask(patches, q.device)[:, None], float("-inf"))
        return torch.einsum("bhij,bhje->bhie", scores.softmax(-1), v)

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """The mask itself."""
        return self.mask(None if patches is None else patches.cpu()[None])[0]

    @property
    def mix_order_free(self) -> bool:
        """A patch's place decides what it sees."""
        return False
