"""Original 001's lambda layer as somebody's class: its square kernel slides over a strip of tokens as they come."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.base import Attention
from saccade.attention.initial import GeneratorOf, within
from saccade.attention.lambda_layer import Lambda
from saccade.attention.tokens import Tokens


class StripLambda(Attention):
    """A lambda layer whose r x r kernel is put on a 1 x N strip of tokens in the order in which they arrive.

    Of the kernel only the middle row ever meets a token, r of r² taps, and who is a neighbour is decided by the order
    of arrival: in the original's masked autoencoder by chance. It claims what the lambda layer claims, and
    `saccade check saccade.originals.strip_lambda:StripLambda` finds it out.
    """

    paper = "Bello 2021, https://arxiv.org/abs/2102.08602"
    cost = "N k D (1 + r² / H)"
    any_length = True
    free_of_order = False
    needs_grid = True
    exact_when = "never"

    def __init__(self, dim: int, num_heads: int, tokens: Tokens, *, layer: int = 0) -> None:
        super().__init__(dim, num_heads, tokens, layer=layer)
        # The weights, and what it should have been.
        self.layer_on_grid = Lambda(dim, num_heads, tokens, layer=layer)

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
    ) -> Float[Tensor, "b m w"]:
        """The sum of the parts."""
        y = torch.stack(list(self.parts(x, patches).values())).sum(0)
        return y if outputs is None else y[:, outputs]

    def parts(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None
    ) -> dict[str, Float[Tensor, "b n w"]]:
        """Content and position; which patches these are is nothing that the original's layer was told."""
        own = self.layer_on_grid
        assert own.E is not None
        q, k, v = own.qkv(x).split(own.widths, dim=-1)
        q, v = own.norm_q(q).unflatten(-1, (self.num_heads, own.k)), own.norm_v(v)
        lambdas = torch.einsum("bmk,bme->bke", k.softmax(1), v)
        strips = v.transpose(1, 2).flatten(0, 1)[:, None, None]
        around = nn.functional.conv2d(strips, own.E, own.E_bias, padding=own.r // 2)
        around = around.squeeze(2).unflatten(0, (len(x), -1))
        return {
            "content": torch.einsum("bnhk,bke->bnhe", q, lambdas).flatten(2),
            "position": torch.einsum("bnhk,bekn->bnhe", q, around).flatten(2),
        }

    def reference(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None) -> Float[Tensor, "b n w"]:
        """The paper's: dense sums over pairs of patches on the grid, with the same weights."""
        return self.layer_on_grid.reference(x, patches)

    def flops(self, patches: int, rows: int | None = None) -> int:
        """Projections, content lambda, the whole kernel at every token, and both applied to all queries."""
        own, n = self.layer_on_grid, self.tokens.prefix + patches
        of_values = own.k * own.head_dim
        return 2 * n * (self.dim * sum(own.widths) + of_values * (1 + own.r**2) + 2 * own.k * self.dim)

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """What a lambda layer says: through the position, the r x r surroundings on the grid."""
        return self.layer_on_grid.reach(patches, part)

    @property
    def order_free(self) -> bool:
        """The strip has an order, if not that of the image."""
        return False

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As the lambda layer's."""
        self.layer_on_grid.reset_parameters(within(generator_of, "layer_on_grid"))

    def resample(self, old: Tokens) -> None:
        """As the lambda layer's."""
        self.layer_on_grid = self.layer_on_grid.regrid(self.tokens)  # type: ignore[assignment]


def taps_with_data(layer: Lambda | StripLambda) -> tuple[int, int]:
    """How many taps of the kernel a whole grid of tokens ever reaches, and how many there are."""
    kernel = (layer.layer_on_grid if isinstance(layer, StripLambda) else layer).E
    assert kernel is not None
    x = torch.randn(2, layer.tokens.count, layer.dim, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(layer.eval()(x).square().sum(), kernel)
    reached = slope.abs().amax((0, 1)) > 0
    return int(reached.sum()), reached.numel()
