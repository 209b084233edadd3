"""Token merging: between attention and MLP the patches most alike become one token, so that later blocks have fewer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from saccade.attention.crowd import Crowd
from saccade.attention.parts import at_least_float32, without_autocast
from saccade.attention.tokens import Tokens
from saccade.models.block import Block


class TokenMerging(nn.Module):
    """Merges r patches into others by bipartite soft matching (Bolya et al. 2023, https://arxiv.org/abs/2210.09461).

    The tokens at even places, A, and those at odd places, B, are told apart. Each patch of A finds the patch of B whose
    key, mean over heads, has the greatest cosine with its own; the r best of these pairs become one token each, the
    mean of all patches in it. Prefix tokens neither join nor are joined. Who is left of A stands before B, as in the
    published code (https://github.com/facebookresearch/ToMe). Of few patches at most half are merged.

    Args:
        count: r.
        tokens: of the first block.

    Raises:
        ValueError: more than half of the patches.
    """

    def __init__(self, count: int, tokens: Tokens) -> None:
        super().__init__()
        if count > tokens.patches // 2:
            raise ValueError(
                f"token_merging={count} of {tokens.patches} patches: must be at most half of them, "
                f"{tokens.patches // 2}, for each joins one that stays"
            )
        self.count = count
        self.prefix = tokens.prefix

    def left(self, patches: int) -> int:
        """How many tokens are left of so many patches."""
        return patches - min(self.count, patches // 2)

    def flops(self, patches: int, head_dim: int) -> int:
        """Floating-point operations for one image: the product of all keys of A with all of B; backward has none."""
        return 2 * (patches // 2) * (patches - patches // 2) * head_dim

    def forward(self, x: Float[Tensor, "b n w"], crowd: Crowd) -> Float[Tensor, "b m w"]:
        """The tokens that are left; `crowd` is told their sizes.

        Args:
            x: prefix tokens, then patches.
            crowd: of these tokens, with the keys that the attention saw.
        """
        patches = x.shape[1] - self.prefix
        if self.left(patches) == patches:
            return x
        assert crowd.keys is not None
        sizes = x.new_ones(x.shape[:2], dtype=torch.float32) if crowd.sizes is None else crowd.sizes
        stay, join, partner = self._matched(crowd.keys.detach())
        a, b = self._halves(x)
        size_a, size_b = self._halves(sizes[..., None])
        # Sums of what stands for many patches are beyond half precision.
        weighed_a, weighed_b = at_least_float32(a) * size_a, at_least_float32(b) * size_b
        size = size_b.scatter_add(1, partner, _rows(size_a, join))
        sums = weighed_b.scatter_add(1, partner.expand(-1, -1, x.shape[2]), _rows(weighed_a, join))
        prefix = self.prefix
        crowd.sizes = torch.cat([sizes[:, :prefix], _rows(size_a, stay)[..., 0], size[..., 0]], dim=1)
        return torch.cat([x[:, :prefix], _rows(a, stay), (sums / size).to(x.dtype)], dim=1)

    @torch.no_grad()
    def _matched(
        self, keys: Float[Tensor, "b n e"]
    ) -> tuple[Int[Tensor, "b s 1"], Int[Tensor, "b r 1"], Int[Tensor, "b r 1"]]:
        """Which of A stay, in their order; which join, and each one's partner in B."""
        directions = nn.functional.normalize(at_least_float32(keys), dim=-1)
        a, b = self._halves(directions)
        # Rounded scores would be equal where keys are not.
        with without_autocast(keys.device):
            best, partner = (a @ b.transpose(1, 2)).max(dim=-1)
        patches = keys.shape[1] - self.prefix
        order = best.argsort(dim=-1, descending=True, stable=True)
        join, stay = order.tensor_split([patches - self.left(patches)], dim=1)
        return stay.sort(dim=1).values[..., None], join[..., None], partner.gather(1, join)[..., None]

    def _halves(self, x: Float[Tensor, "b n w"]) -> tuple[Float[Tensor, "b a w"], Float[Tensor, "b c w"]]:
        """The patches of A and those of B."""
        even = self.prefix + self.prefix % 2
        odd = self.prefix + 1 - self.prefix % 2
        return x[:, even::2], x[:, odd::2]


def run_merging(
    blocks: Iterable[Block],
    x: Float[Tensor, "b n w"],
    outputs: slice | None = None,
    noise: Float[Tensor, "b u"] | None = None,
    *,
    checkpointing: bool = False,
) -> Float[Tensor, "b m w"]:
    """Runs blocks that merge tokens: each attention counts a token as often as there are patches in it.

    It adds log s, s being a token's size, to the scores of that token's key, the paper's proportional attention.

    Args:
        blocks: made with a `TokenMerging` and softmax attention.
        x: prefix tokens, then patches.
        outputs: the rows that are wanted; then the last block computes these alone, and merges nothing.
        noise: two numbers a block, as a block's, side by side.
        checkpointing: keeps only the inputs of the blocks for backward, which runs each block again.
    """
    *earlier, last = blocks
    sizes: Float[Tensor, "b n"] | None = None
    for layer, block in enumerate([*earlier, last]):
        rows = outputs if block is last else None
        mine = None if noise is None else noise[:, 2 * layer : 2 * layer + 2]
        if checkpointing and torch.is_grad_enabled():
            x, sizes = checkpoint(_through, block, x, sizes, rows, mine, use_reentrant=False)
        else:
            x, sizes = _through(block, x, sizes, rows, mine)
    return x


def _through(
    block: Block,
    x: Float[Tensor, "b n w"],
    sizes: Float[Tensor, "b n"] | None,
    outputs: slice | None,
    noise: Float[Tensor, "b 2"] | None,
) -> tuple[Float[Tensor, "b m w"], Float[Tensor, "b k"] | None]:
    """One block, and the sizes of what it puts out."""
    assert block.merge is not None
    crowd = Crowd(sizes)
    of_attention, of_mlp = (None, None) if noise is None else noise.unbind(1)
    attended = block.attention_branch(x, None, outputs, of_attention, crowd)
    x = (x if outputs is None else x[:, outputs]) + attended
    if outputs is None:
        x = block.merge(x, crowd)
    return block.post_norm(x + block.mlp_branch(x, of_mlp)), crowd.sizes


def _rows(x: Float[Tensor, "b n w"], which: Int[Tensor, "b m 1"]) -> Float[Tensor, "b m w"]:
    return x.gather(1, which.expand(-1, -1, x.shape[2]))
