"""Global attention: a few tokens see all and are seen by all; every other sees those and itself."""

from __future__ import annotations

from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.attention.base import Shared
from saccade.attention.buckets import gathered
from saccade.attention.initial import GeneratorOf, unseeded
from saccade.attention.masked import Masked
from saccade.attention.parts import require_whole, softmax_attention
from saccade.attention.tokens import Tokens


class Global(Masked):
    """A few global tokens see all and are seen by all: softmax(QKᵀ/√e) V where i or j is global, or i = j.

    The prefix tokens are global; so are patches at regular places of the grid, and any that are named. The diagonal is
    added: without it, a patch would not see itself. Of a visible subset those patches are global that the whole grid's
    are.

    Args:
        every: in each square of this many patches a side, the one in the middle is global; 0 is none.
        patches: ids of further patches that are global. Another grid takes those at the same places.
    """

    paper = "Beltagy et al. 2020, https://arxiv.org/abs/2004.05150 (its global attention, without the window)"
    cost = "N (P + N / every²) D"
    any_length = True
    free_of_order = False
    needs_grid = True
    exact_when = "every = 1"

    global_ids: Int[Tensor, " g"]

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        every: int = 4,
        patches: tuple[int, ...] = (),
        **shared: Unpack[Shared],
    ) -> None:
        require_whole("global", 0, every=every)
        if not isinstance(patches, tuple | list):
            raise ValueError(f"global(patches={patches!r}): patches must be a list of ids, as in (0, 5)")
        if any(type(id_) is not int or id_ < 0 for id_ in patches):
            raise ValueError(f"global(patches={patches!r}): patches must be ids, whole numbers of at least 0")
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.every = every
        self.named = patches
        self.register_buffer("global_ids", torch.tensor(self._chosen(), dtype=torch.long), persistent=False)
        self.reset_parameters(unseeded)

    def allowed(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p p"]:
        """One of the two is global, or they are one."""
        is_global = self._is_global(ids)
        return is_global[:, :, None] | is_global[:, None, :] | (ids[:, :, None] == ids[:, None, :])

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """The rows of the global tokens, and between them and the others what is seen of each other."""
        if patches is None:
            places, there = self.global_ids[None], torch.ones_like(self.global_ids, dtype=torch.bool)[None]
        else:
            # The visible global patches first: no image has more of them than there are.
            there, places = self._is_global(patches).sort(dim=1, descending=True, stable=True)
            there, places = (found[:, : len(self.global_ids)] for found in (there, places))
        return global_attention(q, k, v, self.tokens.prefix, places, there)

    def _is_global(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p"]:
        return (ids[..., None] == self.global_ids.to(ids.device)).any(-1)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Rows of the global tokens over all, and rows of all patches over the global tokens."""
        n = self.tokens.prefix + patches
        return 4 * self.dim * (self.tokens.prefix + min(len(self.global_ids), patches)) * (n + patches)

    def refusal(self, patches: int) -> str | None:
        """Without global tokens nothing mixes, and with half of the patches global it is as much work as softmax."""
        count, whole = len(self.global_ids), self.tokens.patches
        written = f"global(every={self.every}, patches={self.named})"
        if self.named and max(self.named) >= whole:
            return f"{written} names a patch that is not there: ids on a grid of {whole} patches are 0..{whole - 1}"
        if not count and not self.tokens.prefix:
            return f"{written} without prefix tokens has no global token: no patch would see another; set every"
        if whole > 1 and 2 * count >= whole:
            return (
                f"{written} makes {count} of {whole} patches global: half of them is as much work as softmax, "
                "all of them softmax under another name; name fewer, or set every higher"
            )
        return None

    @property
    def mix_order_free(self) -> bool:
        """Where no patch is global, all patches are alike."""
        return not len(self.global_ids)

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead; which patches are global is no matter of chance."""
        super().reset_parameters(generator_of)
        self.global_ids.copy_(torch.tensor(self._chosen(), dtype=torch.long))

    def resample(self, old: Tokens) -> None:
        """Regular places anew; a patch that was named hands over to the one at its place."""
        moved = (
            tuple(
                ((2 * at + 1) * size) // (2 * was)
                for at, was, size in zip(divmod(id_, old.grid[1]), old.grid, self.tokens.grid, strict=True)
            )
            for id_ in self.named
        )
        self.named = tuple(sorted({row * self.tokens.grid[1] + column for row, column in moved}))
        self.global_ids = torch.tensor(self._chosen(), dtype=torch.long, device=self.global_ids.device)

    def _chosen(self) -> list[int]:
        """Global patches of the whole grid, ascending."""
        rows, columns = (
            range(min(self.every // 2, length - 1), length, self.every) if self.every else range(0)
            for length in self.tokens.grid
        )
        regular = {row * self.tokens.grid[1] + column for row in rows for column in columns}
        return sorted(regular | set(self.named))

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """On narrow grids, where every fourth place would be too many, one patch in the middle."""
        return {"every": max(4, *tokens.grid)}

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """Every patch is global."""
        return {"every": 1}


def global_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    prefix: int,
    places: Int[Tensor, "#b g"],
    there: Bool[Tensor, "#b g"],
) -> Float[Tensor, "b h n e"]:
    """Softmax attention in which global tokens see all, and each other token sees those and itself.

    Args:
        q: queries, the prefix's first.
        k: keys.
        v: values.
        prefix: how many prefix tokens there are; they are global.
        places: global patches, counted from 0 after the prefix, no place twice in an image.
        there: False where a place is filled by a patch that is not global.
    """
    ahead = torch.arange(prefix, device=q.device).expand(len(places), -1)
    looked_at = torch.cat([ahead, places + prefix], dim=1).expand(len(q), -1)[:, None]
    seen = torch.nn.functional.pad(there, (prefix, 0), value=True)[:, None, None]
    own_q, own_k, own_v = (x[:, :, prefix:] for x in (q, k, v))
    own_q = own_q * q.shape[-1] ** -0.5
    between = (own_q @ gathered(k, looked_at).mT).masked_fill(~seen, float("-inf"))
    itself = (own_q * own_k).sum(-1, keepdim=True)
    weights = torch.cat([between, itself], dim=-1).softmax(-1)
    rows = weights[..., :-1] @ gathered(v, looked_at) + weights[..., -1:] * own_v
    of_prefix, of_patches = softmax_attention(gathered(q, looked_at), k, v).tensor_split([prefix], dim=2)
    index = places[:, None, :, None].expand(len(q), q.shape[1], -1, q.shape[3])
    kept = torch.where(there[:, None, :, None], of_patches, rows.gather(2, index))
    return torch.cat([of_prefix, rows.scatter(2, index, kept)], dim=2)
