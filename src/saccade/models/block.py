"""One block of a transformer: attention, then an MLP, each behind a norm and beside a shortcut."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.attention.base import Attention, MultiHead
from saccade.attention.crowd import Crowd
from saccade.attention.initial import GeneratorOf, within
from saccade.attention.renormed import normed
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

    The style "xformers" is the block that xFormers' factory makes (https://github.com/facebookresearch/xformers,
    v0.0.22, `layer_norm_style="pre"`): another norm follows the MLP's shortcut, and queries, keys and values have a
    projection each where a mechanism has the usual ones. Reversible blocks leave that norm out, as they do there: it
    cannot be undone.

    Args:
        attn: the attention layer.
        hidden: width of the MLP's hidden layer.
        style: "pre" or "xformers".
        reversible: whether it is a step of two streams (`models/reversible.py`) and not of one.
        mlp_layer: "mlp" or "swiglu".
        init_values: where layer scale starts; None for none.
        proj_drop: rate of dropout behind both projections and inside the MLP.
        drop_path: rate of stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382).
        merge: what leaves fewer tokens to the MLP, where the blocks are run for that (`models/merging.py`); None for
            nothing.
    """

    def __init__(
        self,
        attn: Attention,
        hidden: int,
        *,
        style: str = "pre",
        reversible: bool = False,
        mlp_layer: str = "mlp",
        init_values: float | None = None,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
        merge: nn.Module | None = None,
    ) -> None:
        super().__init__()
        dim = attn.dim
        if style == "xformers" and isinstance(attn, MultiHead):
            attn.separate()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.proj_drop = nn.Dropout(proj_drop)
        self.ls1 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.merge = merge
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP_LAYERS[mlp_layer](dim, hidden, proj_drop)
        self.ls2 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        behind = style == "xformers" and not reversible
        self.post_norm = nn.LayerNorm(dim, eps=1e-6) if behind else nn.Identity()

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
        attended = self.attention_branch(x, patches, outputs, None if noise is None else noise[:, 0])
        x = (x if outputs is None else x[:, outputs]) + attended
        return self.post_norm(x + self.mlp_branch(x, None if noise is None else noise[:, 1]))

    def attention_branch(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None,
        outputs: slice | None,
        noise: Float[Tensor, " b"] | None,
        crowd: Crowd | None = None,
    ) -> Float[Tensor, "b m w"]:
        """What the attention adds to its shortcut; only softmax is told of a crowd."""
        told = () if crowd is None else (crowd,)
        return self._kept(self.ls1(self.proj_drop(self.attn(normed(self.norm1, x), patches, outputs, *told))), noise)

    def mlp_branch(self, x: Float[Tensor, "b m w"], noise: Float[Tensor, " b"] | None) -> Float[Tensor, "b m w"]:
        """What the MLP adds to its shortcut."""
        return self._kept(self.ls2(self.mlp(normed(self.norm2, x))), noise)

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Refills every parameter."""
        self.attn.reset_parameters(within(generator_of, "attn"))
        self.mlp.reset_parameters(within(generator_of, "mlp"))
        for module in (self.norm1, self.norm2, self.ls1, self.ls2, self.post_norm):
            if isinstance(module, (nn.LayerNorm, LayerScale)):
                module.reset_parameters()

    def _kept(self, branch: Float[Tensor, "b m w"], noise: Float[Tensor, " b"] | None) -> Float[Tensor, "b m w"]:
        """Zeroes the branch of a share `drop_path` of the images and scales the others up, so that the mean stays."""
        if noise is None or self.drop_path == 0:
            return branch
        kept = (noise >= self.drop_path).to(branch.dtype) / (1 - self.drop_path)
        return branch * kept[:, None, None]
