"""Listed: masked attention by a list of keys for each patch, drawn or computed once and kept as a buffer."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.attention.base import Shared
from saccade.attention.buckets import gathered, masked_attention, rows_of
from saccade.attention.initial import GeneratorOf, seeded
from saccade.attention.masked import Masked
from saccade.attention.parts import softmax_attention
from saccade.attention.tokens import Tokens

Kernel = Literal["auto", "gather", "dense"]

# Copying one key and value to a row takes as long as 40 entries of a dense row: forward and backward on a CPU, heads
# of 64, 196 and 576 tokens.
GATHER_COST = 40


class Listed(Masked):
    """A patch sees the patches on its list; the lists are of one length, so that no shape depends on a draw.

    A subclass writes `pairs` and `longest`, sets what they need before it calls this constructor, and ends its own with
    `self.reset_parameters(unseeded)`.

    Args:
        kernel: how the one function is computed. "gather" copies each patch's keys and values together, "dense"
            computes every score and drops those that are not listed, "auto" takes what is faster: "gather" where the
            list is shorter than a 40th of the tokens.
    """

    keys: Int[Tensor, "l k"]

    def __init__(
        self,
        name: str,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int,
        kernel: Kernel,
        **shared: Unpack[Shared],
    ) -> None:
        if kernel not in ("auto", "gather", "dense"):
            raise ValueError(f'{name}(kernel={kernel!r}): kernel must be "auto", "gather" or "dense"')
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.kernel = kernel
        self._make_room()

    @abstractmethod
    def pairs(self, generator_of: GeneratorOf) -> Bool[Tensor, "l l"]:
        """Which patch (row) sees which (column) on the whole grid, on the CPU; drawn from the generator of "keys"."""

    @abstractmethod
    def longest(self) -> int:
        """The length of the lists, the patch itself included: the same at every draw."""

    def allowed(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p p"]:
        """By the lists of the patches."""
        count = self.tokens.patches
        keys = self.keys.to(ids.device)
        seen = torch.zeros(count, count + 1, dtype=torch.bool, device=ids.device)
        # Empty places of a list fall into a column of their own.
        seen = seen.scatter(1, torch.where(keys < 0, count, keys), True)[:, :count]
        return seen[ids[:, :, None], ids[:, None, :]]

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """By the kernel that `gathers` names."""
        if self.gathers(q.shape[2] - self.tokens.prefix):
            return listed_attention(q, k, v, self.tokens.prefix, self._places(patches))
        return masked_attention(q, k, v, self.mask(patches, q.device)[:, None])

    def gathers(self, patches: int) -> bool:
        """Whether keys are gathered for so many visible patches."""
        length = self.keys.shape[1]
        if length >= patches:
            return False
        # Decided by the whole grid, so that a part of it costs no more.
        return self.kernel == "gather" or (self.kernel == "auto" and length * GATHER_COST <= self.tokens.count)

    def _places(self, patches: Int[Tensor, "b p"] | None) -> Int[Tensor, "#b p k"]:
        """Which of the visible patches stand on the list of each, -1 where a place is empty or its patch is hidden."""
        if patches is None:
            return self.keys[None]
        wanted = self.keys[patches]
        # The last row is that of the id -1.
        return rows_of(patches, self.tokens).gather(1, wanted.flatten(1) % (self.tokens.patches + 1)).view_as(wanted)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Of what runs: where keys are gathered, prefix and list for each patch; else every pair of tokens."""
        prefix = self.tokens.prefix
        n = prefix + patches
        pairs = prefix * n + patches * (prefix + self.keys.shape[1]) if self.gathers(patches) else n * n
        return 4 * self.dim * pairs

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead, and the lists anew."""
        super().reset_parameters(generator_of)
        if not self.keys.is_meta:
            self.keys.copy_(key_lists(self.pairs(generator_of), self.keys.shape[1]))

    def resample(self, old: Tokens) -> None:
        """Lists for another grid are drawn from a seed that is the layer's index."""
        if old.grid != self.tokens.grid:
            device = self.keys.device
            self._make_room()
            self.keys.copy_(key_lists(self.pairs(seeded(self.layer)), self.keys.shape[1]))
            self.to(device)

    def _make_room(self) -> None:
        self.register_buffer("keys", torch.empty(self.tokens.patches, self.longest(), dtype=torch.long))


def listed_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    prefix: int,
    places: Int[Tensor, "#b p k"],
) -> Float[Tensor, "b h n e"]:
    """Softmax attention of each patch over the prefix and the patches on its list; the prefix sees all.

    Args:
        q: queries, the prefix's first.
        k: keys.
        v: values.
        prefix: how many prefix tokens there are.
        places: for each patch the patches it sees, counted from 0 after the prefix; -1 is none.
    """
    ahead = torch.arange(prefix, device=q.device).expand(*places.shape[:2], -1)
    looked_at = torch.cat([ahead, places.clamp_min(0) + prefix], dim=2)
    there = torch.nn.functional.pad(places >= 0, (prefix, 0), value=True)
    allowed = there.expand(len(q), -1, -1).flatten(0, 1)[:, None, None]
    own = q[:, :, prefix:].transpose(1, 2).flatten(0, 1).unsqueeze(2)
    y = masked_attention(own, gathered(k, looked_at), gathered(v, looked_at), allowed)
    y = y.squeeze(2).unflatten(0, (len(q), -1)).transpose(1, 2)
    return torch.cat([softmax_attention(q[:, :, :prefix], k, v), y], dim=2)


def key_lists(pairs: Bool[Tensor, "l l"], length: int) -> Int[Tensor, "l k"]:
    """The columns that are on in each row, itself first, then ascending, -1 in the places that are left.

    Where more are on than `length`, the last are left out.
    """
    ids = torch.arange(len(pairs), device=pairs.device)
    others = pairs.clone().fill_diagonal_(False)
    row, column = others.nonzero(as_tuple=True)
    counts = others.sum(1)
    place = 1 + torch.arange(len(row), device=pairs.device) - (counts.cumsum(0) - counts)[row]
    kept = place < length
    lists = torch.full((len(pairs), length), -1, device=pairs.device)
    lists[:, 0] = ids
    lists[row[kept], place[kept]] = column[kept]
    return lists


def most(mean: float) -> int:
    """The count that a sum of independent draws with this mean exceeds less than once in a million times (Poisson)."""
    if mean <= 0:
        return 0
    count, term = 0, math.exp(-mean)
    below = term
    # exp underflows there; the normal tail is close enough.
    if mean > 500:
        return math.ceil(mean + 5 * mean**0.5)
    while below < 1 - 1e-6:
        count += 1
        term *= mean / count
        below += term
    return count
