"""One block of a transformer: attention, then an MLP, each behind a norm and beside a shortcut."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.attention.base import Attention
from saccade.attention.initial import GeneratorOf, within
from saccade.models.mlp import Mlp, SwiGLU

MLP_LAYERS: dict[str, type[Mlp | SwiGLU]] = {"mlp": Mlp, "swiglu": SwiGLU}


class LayerScale(nn.Module):
    """Scales each channel by a learned number that starts small (Touvron et al. 2021, https://arxiv.org/abs/2103.17239)."""

    def __init__(self, dim: int, init_values: float) -> None:
        super().__init__()
        self.init_values = init_values
        self.gamma = nn.Parameter(init_values * torch.ones(dim))

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        """Multiplies."""
        return x * self.gamma

    def reset_parameters(self) -> None:
        """Every channel starts alike."""
        nn.init.constant_(self.gamma, self.init_values)


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), under timm's names.

    Args:
        attn: the attention layer.
        hidden: width of the MLP's hidden layer.
        mlp_layer: "mlp" or "swiglu".
        init_values: where layer scale starts; None for none.
        proj_drop: rate of dropout behind both projections and inside the MLP.
        drop_path: rate of stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382).
    """

    def __init__(
        self,
        attn: Attention,
        hidden: int,
        *,
        mlp_layer: str = "mlp",
        init_values: float | None = None,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        dim = attn.dim
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.proj_drop = nn.Dropout(proj_drop)
        self.ls1 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP_LAYERS[mlp_layer](dim, hidden, proj_drop)
        self.ls2 = nn.Identity() if init_values is None else LayerScale(dim, init_values)

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
        noise: Float[Tensor, "b 2"] | None = None,
    ) -> Float[Tensor, "b m w"]:
        """Runs the block.

        Args:
            x: prefix tokens, then patches.
            patches: ids of the visible patches; None means all, in raster order.
            outputs: the rows that are wanted, the only ones whose queries and MLP are computed; None means all.
            noise: numbers uniform in 0..1 that decide which images skip the attention and which the MLP; None: no image
                skips.
        """
        attended = self.ls1(self.proj_drop(self.attn(self.norm1(x), patches, outputs)))
        x = x if outputs is None else x[:, outputs]
        x = x + self._kept(attended, None if noise is None else noise[:, 0])
        return x + self._kept(self.ls2(self.mlp(self.norm2(x))), None if noise is None else noise[:, 1])

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Refills every parameter."""
        self.attn.reset_parameters(within(generator_of, "attn"))
        self.mlp.reset_parameters(within(generator_of, "mlp"))
        for module in (self.norm1, self.norm2, self.ls1, self.ls2):
            if isinstance(module, (nn.LayerNorm, LayerScale)):
                module.reset_parameters()

    def _kept(self, branch: Float[Tensor, "b m w"], noise: Float[Tensor, " b"] | None) -> Float[Tensor, "b m w"]:
        """Zeroes the branch of a share `drop_path` of the images and scales the others up, so that the mean stays."""
        if noise is None or self.drop_path == 0:
            return branch
        kept = (noise >= self.drop_path).to(branch.dtype) / (1 - self.drop_path)
        return branch * kept[:, None, None]
