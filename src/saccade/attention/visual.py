"""Visual attention: each patch is multiplied by what a large, decomposed convolution makes of its surroundings."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.base import Attention
from saccade.attention.initial import GeneratorOf, fill_normal, unseeded
from saccade.attention.parts import coordinates, off_grid, onto_grid, require_whole, visible_ids
from saccade.attention.tokens import Tokens


class Visual(Attention):
    """A patch is multiplied by a large convolution around it: X + W₃(U ⊙ W₂ C′(C U)) with U = GELU(W₁ X).

    C and C′ convolve each channel alone, C′ with gaps between its taps: together they reach about as far as one kernel
    of K x K. A visible subset of U is put on the grid, zeros elsewhere, and what C writes to hidden places is taken
    away again, so that a hidden patch is like a place beyond the edge. A prefix token has no place on the grid, and
    passes C and C′ unchanged. The X in front is the paper's own, beside that of the block. Heads mean nothing here.

    Args:
        kernel: K, the side of the kernel that is decomposed; it may exceed the grid.
        dilation: d, the distance between the taps of C′. C has (2d - 1)² taps and C′ has ⌈K / d⌉², which must be odd.
    """

    paper = "Guo et al. 2022 (VAN), https://arxiv.org/abs/2202.09741"
    cost = "N D² + N D K² / d²"
    any_length = True
    free_of_order = False
    needs_grid = True
    exact_when = "never"

    def __init__(
        self, dim: int, num_heads: int, tokens: Tokens, *, layer: int = 0, kernel: int = 21, dilation: int = 3
    ) -> None:
        require_whole("visual", 1, kernel=kernel, dilation=dilation)
        side = -(-kernel // dilation)
        if side < 3 or side % 2 == 0:
            raise ValueError(
                f"visual(kernel={kernel}, dilation={dilation}): kernel / dilation, rounded up, is {side}, and must be "
                "odd and at least 3: it is the side of the second convolution"
            )
        super().__init__(dim, num_heads, tokens, layer=layer)
        self.proj_1 = nn.Linear(dim, dim)
        self.conv0 = nn.Conv2d(dim, dim, 2 * dilation - 1, padding=dilation - 1, groups=dim)
        self.conv_spatial = nn.Conv2d(dim, dim, side, padding=side // 2 * dilation, groups=dim, dilation=dilation)
        self.conv1 = nn.Linear(dim, dim)
        self.proj_2 = nn.Linear(dim, dim)
        self.reset_parameters(unseeded)

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
    ) -> Float[Tensor, "b m w"]:
        """Convolves on the grid; what comes after is computed for the wanted rows alone."""
        u = nn.functional.gelu(self.proj_1(x))
        prefix, visible = u.tensor_split([self.tokens.prefix], dim=1)
        around = torch.cat([prefix, self._surroundings(visible, patches)], dim=1)
        if outputs is not None:
            x, u, around = x[:, outputs], u[:, outputs], around[:, outputs]
        return x + self.proj_2(u * self.conv1(around))

    def _surroundings(self, u: Float[Tensor, "b p w"], patches: Int[Tensor, "b p"] | None) -> Float[Tensor, "b p w"]:
        """C₂(C₁ U) on the grid, hidden places zero before both."""
        near = self.conv0(self._maps(u, patches))
        if patches is not None:
            near = near * self._maps(torch.ones_like(u[..., :1]), patches)
        return off_grid(self.conv_spatial(near).flatten(2).mT, patches)

    def _maps(self, u: Float[Tensor, "b p c"], patches: Int[Tensor, "b p"] | None) -> Float[Tensor, "b c y x"]:
        return onto_grid(u, patches, self.tokens).unflatten(1, self.tokens.grid).permute(0, 3, 1, 2)

    def reference(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None) -> Float[Tensor, "b n w"]:
        """Both convolutions as sums over pairs of visible patches, each with the weight of its distance."""
        ids = visible_ids(self.tokens, patches, x.device)
        u = nn.functional.gelu(self.proj_1(x))
        prefix, around = u.tensor_split([self.tokens.prefix], dim=1)
        for conv in (self.conv0, self.conv_spatial):
            assert conv.bias is not None
            row, column, known = self._taps(conv, ids)
            taps = conv.weight[:, 0, row.clamp(0, conv.kernel_size[0] - 1), column.clamp(0, conv.kernel_size[1] - 1)]
            weights = torch.where(known, taps, 0.0).transpose(0, 1).expand(len(x), -1, -1, -1)
            around = torch.einsum("bcnm,bmc->bnc", weights, around) + conv.bias
        return x + self.proj_2(u * self.conv1(torch.cat([prefix, around], dim=1)))

    def _taps(
        self, conv: nn.Conv2d, ids: Int[Tensor, "b p"]
    ) -> tuple[Int[Tensor, "b p p"], Int[Tensor, "b p p"], Bool[Tensor, "b p p"]]:
        """Row and column of the tap through which patch n sees patch m (last dimension), and whether there is such."""
        gap, middle = conv.dilation[0], conv.kernel_size[0] // 2
        down, right = (place[:, None] - place[:, :, None] for place in coordinates(self.tokens, ids))
        far = torch.maximum(down.abs(), right.abs()) > middle * gap
        return down // gap + middle, right // gap + middle, (down % gap == 0) & (right % gap == 0) & ~far

    def flops(self, patches: int, rows: int | None = None) -> int:
        """Three projections, two of them for the wanted rows alone, and the taps of both convolutions everywhere."""
        n = self.tokens.prefix + patches
        wanted = n if rows is None else rows
        taps = self.conv0.kernel_size[0] ** 2 + self.conv_spatial.kernel_size[0] ** 2
        return 2 * self.dim * (self.dim * (n + 2 * wanted) + self.tokens.patches * taps)

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """Each token itself; between patches what C′ reaches from a visible patch that C reaches."""
        ids = (torch.arange(self.tokens.patches) if patches is None else patches.cpu())[None]
        near, far = (self._taps(conv, ids)[2][0].float() for conv in (self.conv0, self.conv_spatial))
        prefix = self.tokens.prefix
        reach = nn.functional.pad(far @ near > 0, (prefix, 0, prefix, 0))
        return reach.fill_diagonal_(True)

    @property
    def order_free(self) -> bool:
        """Only where there is one place."""
        return self.tokens.patches == 1

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As the authors': normals of √(2 / (taps x outputs in a group)), cut off as all are here; biases 0."""
        for name in ("proj_1", "conv0", "conv_spatial", "conv1", "proj_2"):
            made = getattr(self, name)
            outputs = 1 if isinstance(made, nn.Conv2d) else self.dim
            fill_normal(made.weight, generator_of(f"{name}.weight"), (2 / (outputs * made.weight[0, 0].numel())) ** 0.5)
            nn.init.zeros_(made.bias)
