"""Block-sparse attention: patches are cut into blocks, and a layout says which block sees which."""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.attention.base import Shared
from saccade.attention.buckets import gathered, masked_attention, rows_of
from saccade.attention.initial import GeneratorOf, seeded, unseeded
from saccade.attention.layouts import parse_layout
from saccade.attention.masked import Masked
from saccade.attention.parts import coordinates, softmax_attention, visible_ids
from saccade.attention.tokens import Tokens

Order = Literal["tiles", "raster"]

BLOCKS = (16, 32, 64, 128)


class BlockSparse(Masked):
    """Blocks of patches see some blocks: softmax(QKᵀ/√e) V where layout[block of i, block of j]; the prefix sees all.

    The patches are put in order and cut into blocks; the last may be short. A block's queries meet the keys of the
    blocks it sees and of the prefix, as many blocks as the fullest row of the layout has, and what is too many is
    dropped; rows that see all are computed apart. Patches keep their blocks where only some are visible. Where all
    pairs of the visible tokens are fewer than the scores of the blocks, all pairs are computed and those outside the
    layout dropped: the declared FLOPs are of what runs. What is random in a layout is drawn once and saved; another
    grid gets another draw.

    Args:
        layout: "bigbird(random=1,slide=3,global=1)": blocks up to slide // 2 away, the first `global` blocks both ways,
            and `random` drawn ones. "bslongformer(slide=3,global=(0,))": likewise, none drawn, and the blocks that see
            and are seen by all are named; negative ones count from the end. "fixed(local=4,global=1,horizontal=False)":
            windows of `local` blocks, and the last `global` blocks of each window are seen by all; horizontal=True:
            they see all too. "variable(windows=(4,),global=(0,),random=0,horizontal=False)": windows of these lengths,
            the last length repeats.
        block: patches in a block: 16, 32, 64 or 128.
        order: "tiles" takes the patches tile by tile of the grid, so that a block is about square (4 x 4, 4 x 8, 8 x 8,
            8 x 16); "raster" row by row.
        per_head: every head draws its own random blocks; of "fixed", the heads take the blocks of a window in turn.
    """

    paper = "Zaheer et al. 2020, https://arxiv.org/abs/2007.14062"
    cost = "N b w D, w blocks of b a row"
    any_length = False
    free_of_order = False
    needs_grid = True
    exact_when = "one window holds all blocks"

    layout: Bool[Tensor, "h n n"]
    ids: Int[Tensor, "n c"]
    block_of: Int[Tensor, " l"]
    rows: Int[Tensor, " n"]

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        layout: str = "bigbird",
        block: int = 16,
        order: Order = "tiles",
        per_head: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        if block not in BLOCKS:
            raise ValueError(f"block_sparse(block={block!r}): block must be 16, 32, 64 or 128")
        if order not in ("tiles", "raster"):
            raise ValueError(f'block_sparse(order={order!r}): order must be "tiles" or "raster"')
        self.family = parse_layout(layout)
        if per_head and not self.family.random and self.family.variants == 1:
            raise ValueError(f"block_sparse(layout={layout!r}, per_head=True): this layout is the same for every head")
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.block = block
        self.order = order
        self.variants = num_heads if per_head else 1
        self._make_room()
        self.reset_parameters(unseeded)

    @property
    def count(self) -> int:
        """Blocks of the whole grid."""
        return -(-self.tokens.patches // self.block)

    def allowed(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p p"]:
        """In some head."""
        return self._seen(ids).any(1)

    def added(self, ids: Int[Tensor, "b p"]) -> Float[Tensor, "b h p p"] | None:
        """Where heads differ, nothing or minus infinity."""
        if self.variants == 1:
            return None
        seen = self._seen(ids)
        return torch.zeros(seen.shape, dtype=self.qkv.weight.dtype, device=ids.device).masked_fill(~seen, float("-inf"))

    def _seen(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b h p p"]:
        block = self.block_of.to(ids.device)[ids]
        return self.layout.to(ids.device)[:, block[:, :, None], block[:, None, :]].transpose(0, 1)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Block by block, or all pairs where they are fewer."""
        prefix = self.tokens.prefix
        if self.takes_blocks(q.shape[2] - prefix):
            # rows_of ends with a row for the id -1.
            ids = self.ids[None] if patches is None else rows_of(patches, self.tokens)[:, self.ids]
            return block_sparse_attention(q, k, v, prefix, ids, self.layout, self.rows, self.full, self.longest)
        added = self.added(visible_ids(self.tokens, patches, q.device))
        if added is not None:
            added = torch.nn.functional.pad(added, (prefix, 0, prefix, 0))
        return masked_attention(q, k, v, self.mask(patches, q.device)[:, None], added)

    def takes_blocks(self, patches: int) -> bool:
        """Whether the blocks hold fewer scores than all pairs of so many visible patches and the prefix are."""
        return self._block_scores(patches) < (self.tokens.prefix + patches) ** 2

    def _block_scores(self, patches: int) -> int:
        prefix = self.tokens.prefix
        apart = (prefix + self.full * self.block) * (prefix + patches)
        return apart + (self.count - self.full) * self.block * (prefix + self.longest * self.block)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Two products for each score of the blocks, or of all pairs where they are fewer."""
        return 4 * self.dim * min(self._block_scores(patches), (self.tokens.prefix + patches) ** 2)

    def refusal(self, patches: int) -> str | None:
        """A layout that leaves hardly anything out is softmax with more work."""
        if beyond := [block for block in self.family.columns if not -self.count <= block < self.count]:
            return (
                f'block_sparse(layout="{self.family.written}", block={self.block}) on {self.tokens.patches} patches: '
                f"there is no block {beyond[0]}, they are 0..{self.count - 1}"
            )
        density = self.family.density(self.count)
        if density <= 0.9:
            return None
        return (
            f'block_sparse(layout="{self.family.written}", block={self.block}) on {self.tokens.patches} patches, '
            f"{self.count} blocks: {density:.0%} of the pairs of blocks see each other; more than 90 % is softmax with "
            f"more work; take more patches{', smaller blocks' if self.block > min(BLOCKS) else ''} or a sparser layout"
        )

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead, and the layout anew."""
        super().reset_parameters(generator_of)
        if not self.layout.is_meta:
            self._fill(generator_of)

    def resample(self, old: Tokens) -> None:
        """The layout of another grid is drawn from a seed that is the layer's index."""
        if old.grid != self.tokens.grid:
            device = self.layout.device
            self._make_room()
            self._fill(seeded(self.layer))
            self.to(device)

    def _make_room(self) -> None:
        heads, count = self.variants, self.count
        self.full = len(self.family.full_rows(count, heads))
        self.longest = self.family.longest(count, heads)
        self.register_buffer("layout", torch.empty(heads, count, count, dtype=torch.bool))
        shapes = {"ids": (count, self.block), "block_of": (self.tokens.patches,), "rows": (count,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.empty(shape, dtype=torch.long), persistent=False)

    def _fill(self, generator_of: GeneratorOf) -> None:
        generator = generator_of("layout") if self.family.random else None
        self.layout.copy_(self.family.drawn(self.count, self.variants, generator))
        order = in_order(self.tokens, self.block, self.order)
        padded = torch.nn.functional.pad(order, (0, self.count * self.block - len(order)), value=-1)
        self.ids.copy_(padded.view(self.count, self.block))
        self.block_of.copy_(order.argsort() // self.block)
        full = self.family.full_rows(self.count, self.variants)
        self.rows.copy_(torch.tensor(full + [row for row in range(self.count) if row not in full], device="cpu"))

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """The sparser layout where few blocks are left."""
        return {"layout": "bslongformer"}

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """All blocks in one window."""
        return {"layout": f"fixed(local={tokens.patches})"}


def in_order(tokens: Tokens, block: int, order: str) -> Int[Tensor, " l"]:
    """The ids of the whole grid in the order in which they are cut into blocks."""
    ids = torch.arange(tokens.patches, device="cpu")
    if order == "raster":
        return ids
    height = 2 ** (int(math.log2(block)) // 2)
    width = block // height
    y, x = coordinates(tokens, ids)
    tile = (y // height) * tokens.grid[1] + x // width
    return (tile * block + (y % height) * width + x % width).argsort()


def block_sparse_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    prefix: int,
    ids: Int[Tensor, "#b r c"],
    layout: Bool[Tensor, "#h r r"],
    rows: Int[Tensor, " r"],
    full: int,
    longest: int,
) -> Float[Tensor, "b h n e"]:
    """Softmax attention of blocks of patches over the blocks that the layout names, and over the prefix.

    Args:
        q: queries, the prefix's first.
        k: keys.
        v: values.
        prefix: how many prefix tokens there are; they see and are seen by all.
        ids: the patches of each block, counted from 0 after the prefix; -1 where a place is empty.
        layout: which block sees which, for all heads or for each.
        rows: the blocks, those that see all first.
        full: how many see all; they do, whatever the layout says.
        longest: how many blocks any other one sees at most.
    """
    batch, heads, count, _ = q.shape
    mine = ids[:, rows]
    apart, rest = mine[:, :full].flatten(1), mine[:, full:]
    ahead = torch.arange(prefix, device=q.device)
    asking = torch.cat([ahead.expand(len(ids), -1), apart.clamp_min(0) + prefix], dim=1)
    of_apart = softmax_attention(gathered(q, asking[:, None]), k, v)
    on, columns = layout[:, rows[full:]].sort(dim=2, descending=True, stable=True)
    keys = ids[:, columns[:, :, :longest]]
    there = ((keys >= 0) & on[:, :, :longest, None]).flatten(3)
    looked_at = torch.cat([ahead.expand(*there.shape[:3], -1), keys.clamp_min(0).flatten(3) + prefix], dim=3)
    # What an empty place asks for is thrown away, but it must be finite: it sees everything.
    allowed = torch.nn.functional.pad(there, (prefix, 0), value=True)[:, :, :, None] | (rest < 0)[:, None, :, :, None]
    asking = (rest.clamp_min(0) + prefix)[:, None]
    # Heads with layouts of their own stand in place of images.
    alone = (batch * heads, 1) if len(layout) > 1 else (batch, heads)
    own = (x.reshape(*alone, count, -1) for x in (q, k, v))
    asking, looked_at, allowed = (
        x.expand(batch, len(layout), *x.shape[2:]).flatten(0, 1) for x in (asking, looked_at, allowed)
    )
    own_q, own_k, own_v = own
    of_rest = masked_attention(
        gathered(own_q, asking), gathered(own_k, looked_at), gathered(own_v, looked_at), allowed.flatten(0, 1)[:, None]
    )
    of_rest = of_rest.transpose(1, 2).unflatten(0, (alone[0], -1)).flatten(1, 2).transpose(1, 2)
    places = prefix + torch.arange(mine[0].numel(), device=q.device).expand(len(mine), -1)
    place_of = places.new_zeros(len(mine), count - prefix + 1)
    place_of = place_of.scatter(1, mine.flatten(1) % (count - prefix + 1), places)[:, :-1]
    found = torch.cat([ahead.expand(len(mine), -1), place_of], dim=1)
    return gathered(torch.cat([of_apart, of_rest.reshape(batch, heads, -1, q.shape[3])], dim=2), found[:, None])
