"""The masked autoencoder: most patches are hidden, and what they show is predicted from the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from saccade.attention import build, parse_layers
from saccade.attention.base import Attention
from saccade.attention.elsewhere import device_type
from saccade.attention.initial import fill_normal, fill_xavier, seeded, within
from saccade.attention.parts import at_least_float32, off_grid
from saccade.attention.tokens import Tokens
from saccade.models.block import Block
from saccade.models.embed import PatchEmbed, patchify, sine_positions
from saccade.models.masking import hide, mask_unit, visible_patches
from saccade.models.mlp import reset_linear
from saccade.models.options import checked_mae_options
from saccade.models.pixel_error import tiled_error
from saccade.models.reversible import CHECKPOINTING_REFUSED, run_reversible


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a masked autoencoder makes of a batch.

    Attributes:
        loss: mean squared error over the pixels of hidden patches; in SimMIM the mean absolute error.
        pred: predicted pixels of every patch, in raster order, the values of a patch in the order row, column, channel;
            None where they were not asked for.
        mask: 1 for a hidden patch, 0 for a visible one; None where it was not asked for.
    """

    loss: Float[Tensor, ""]
    pred: Float[Tensor, "b n p"] | None = None
    mask: Float[Tensor, "b n"] | None = None


class MaskedAutoencoder(nn.Module):
    """A masked autoencoder (He et al. 2022, https://arxiv.org/abs/2111.06377) with any attention.

    Every layer is told which patches it sees: the visible ones are sorted by their place, so that mechanisms to which
    order or place means something see what they see in a classifier. State dicts have the keys of
    facebookresearch/mae, whose weights load as they are.

    The objective "simmim" (Xie et al. 2022, https://arxiv.org/abs/2111.09886) has no decoder: mask tokens enter the
    encoder in the place of hidden patches, one linear layer predicts their pixels from its output, and the loss is the
    mean absolute error. All layers see all patches. The paper hides 60 % of them, in squares of 32 pixels
    (mask_ratio=0.6, mask_patch_size=32), and learns its positions, which here are MAE's fixed sines; a decoder's sizes
    mean nothing then, and an attention of its own is refused.

    Args:
        img_size: side of the images, or (rows, columns), pixels.
        patch_size: side of a patch, or (rows, columns), pixels.
        in_chans: channels of the images.
        embed_dim: width D of the encoder's tokens; a multiple of 4, for the sine positions.
        depth: number of the encoder's blocks.
        num_heads: heads H of the encoder's attentions.
        decoder_embed_dim: width of the decoder's tokens; a multiple of 4.
        decoder_depth: number of the decoder's blocks.
        decoder_num_heads: heads of the decoder's attentions.
        mlp_ratio: hidden width of each MLP over its input's.
        mlp_layer: "mlp" (GELU) or "swiglu".
        attention: of the encoder, in its written form, or a subclass of Attention.
        decoder_attention: of the decoder; None for the encoder's.
        mask_ratio: share of the patches that are hidden.
        norm_pix_loss: predicts each patch less its own mean, over its own deviation.
        block: "pre" (a norm before attention and MLP) or "xformers" (also one behind the MLP's shortcut, and separate
            queries, keys and values), in encoder and decoder.
        reversible: two streams of tokens in each, whose activations backward makes anew instead of keeping them
            (`models/reversible.py`).
        objective: "mae" or "simmim".
        mask_patch_size: side of what is hidden or left visible as one, or (rows, columns), pixels; None for a patch.
        seed: initial values are f(seed, parameter name).

    Raises:
        ValueError: sizes that do not fit each other, an unknown word, a ratio that hides nothing or leaves fewer than
            two patches, or an attention that refuses so many patches.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        mlp_layer: str = "mlp",
        attention: str | type[Attention] = "softmax",
        decoder_attention: str | type[Attention] | None = None,
        mask_ratio: float = 0.75,
        norm_pix_loss: bool = False,
        block: str = "pre",
        reversible: bool = False,
        objective: str = "mae",
        mask_patch_size: int | Sequence[int] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        given = {key: value for key, value in locals().items() if key not in ("self", "seed", "__class__")}
        super().__init__()
        self.config: dict[str, Any] = checked_mae_options(given)
        self.name: str | None = None
        self.attention: str = self.config["attention"]
        self.decoder_attention: str = self.config["decoder_attention"]
        self.img_size: tuple[int, int] = self.config["img_size"]
        self.in_chans, self.embed_dim, self.decoder_embed_dim = in_chans, embed_dim, decoder_embed_dim
        self.norm_pix_loss, self.reversible, self.objective = norm_pix_loss, reversible, objective
        self.grad_checkpointing = False

        patch: tuple[int, int] = self.config["patch_size"]
        self.patch_embed = PatchEmbed(self.img_size, patch, in_chans, embed_dim)
        self.tokens = Tokens(self.patch_embed.grid_size, prefix=1)
        self.unit = mask_unit(self.tokens.grid, patch, self.config["mask_patch_size"])
        self.visible = visible_patches(self.tokens.patches, mask_ratio, self.unit[0] * self.unit[1])
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.register_buffer("pos_embed", self._sines(embed_dim))
        self.blocks = cast(Sequence[Block], self._blocks(self.attention, embed_dim, depth, num_heads, self.seen))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        decoded = objective == "mae"
        width = decoder_embed_dim if decoded else embed_dim
        self.decoder_embed = nn.Linear(embed_dim, width) if decoded else nn.Identity()
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.register_buffer("decoder_pos_embed", self._sines(width) if decoded else None)
        in_decoder = (self.decoder_attention, width, decoder_depth, decoder_num_heads, self.tokens.patches)
        self.decoder_blocks = cast(Sequence[Block], self._blocks(*in_decoder) if decoded else nn.ModuleList())
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6) if decoded else nn.Identity()
        self.decoder_pred = nn.Linear(width, patch[0] * patch[1] * in_chans)
        self.reset_parameters(seed)

    @property
    def seen(self) -> int:
        """How many patches the encoder's layers see in a training step."""
        return self.visible if self.objective == "mae" else self.tokens.patches

    def forward(
        self, images: Float[Tensor, "b c y x"], noise: Float[Tensor, "b n"] | None = None, *, details: bool = False
    ) -> Reconstruction:
        """Hides patches, predicts them, and says how far off that was.

        Args:
            images: normalised, of the model's size.
            noise: a number a patch; those with the smallest stay visible (as transformers' ViTMAE takes it). None draws
                uniform ones from torch's generator.
            details: also returns prediction and mask; the prediction of visible patches costs extra.

        Raises:
            ValueError: images of another size or number of channels, or noise of another shape.
        """
        visible, hidden = self.hide(len(images), noise, images.device)
        x = self._started(images, visible)
        if not details:
            return Reconstruction(self._error_of_hidden(self._predicted(x, visible, hidden), images, hidden))
        pred = self._predicted(x, visible, None)
        mask = pred.new_ones(pred.shape[:2]).scatter(1, visible, 0.0)
        return Reconstruction(self._error_of_hidden(off_grid(pred, hidden), images, hidden), pred, mask)

    def forward_features(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b n w"]:
        """The encoder's tokens of whole images, class token first: what a probe reads."""
        return self._encoded(images, None)

    def hide(
        self, count: int, noise: Float[Tensor, "b n"] | None, device: torch.device
    ) -> tuple[Int[Tensor, "b v"], Int[Tensor, "b m"]]:
        """Ids of the visible and of the hidden patches of each image, both ascending.

        Args:
            count: images.
            noise: as in `forward`.
            device: where the ids are wanted.

        Raises:
            ValueError: noise of another shape.
        """
        shape = (count, self.tokens.patches)
        if noise is None:
            noise = torch.rand(shape, device=device)
        if noise.shape != shape:
            raise ValueError(f"noise of {tuple(noise.shape)}: must be (images, patches) = {shape}")
        return hide(noise, self.tokens.grid, self.unit, self.visible)

    def targets(self, pixels: Float[Tensor, "b m p"]) -> Float[Tensor, "b m p"]:
        """What is to be predicted of patches whose pixels run channel, row, column: row, column, channel.

        With `norm_pix_loss` less the patch's mean, over its standard deviation (that of a sample; 1e-6 is added to the
        variance), as in facebookresearch/mae.
        """
        target = at_least_float32(pixels).unflatten(2, (self.in_chans, -1)).transpose(2, 3).flatten(2)
        if not self.norm_pix_loss:
            return target
        variance, mean = torch.var_mean(target, dim=2, keepdim=True)
        return (target - mean) / (variance + 1e-6).sqrt()

    def error(self, predicted: Float[Tensor, "*s"], target: Float[Tensor, "*s"]) -> Float[Tensor, ""]:
        """The mean error over all pixels that the objective asks for, squared or absolute, in float32 at least."""
        error = nn.functional.mse_loss if self.objective == "mae" else nn.functional.l1_loss
        return error(at_least_float32(predicted), target)

    def reset_parameters(self, seed: int = 0) -> None:
        """Refills everything with f(seed, parameter name), as MAE starts.

        Projections, that of the patches too, by Xavier's uniform; class and mask token by a normal of 0.02.
        """
        generator_of = seeded(seed)
        self.patch_embed.reset_parameters(within(generator_of, "patch_embed"))
        fill_xavier(self.patch_embed.proj.weight.flatten(1), generator_of("patch_embed.proj.weight"))
        for name in ("cls_token", "mask_token"):
            fill_normal(getattr(self, name), generator_of(name))
        self._fill_sines()
        for layers in ("blocks", "decoder_blocks"):
            for layer, block in enumerate(getattr(self, layers)):
                block.reset_parameters(within(generator_of, f"{layers}.{layer}"))
        for name in ("decoder_embed", "decoder_pred"):
            if isinstance(linear := getattr(self, name), nn.Linear):
                reset_linear(linear, generator_of, name)
        for norm in (self.norm, self.decoder_norm):
            if isinstance(norm, nn.LayerNorm):
                norm.reset_parameters()

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters of two and more dimensions that weight decay should leave alone."""
        return {"cls_token", "mask_token"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keeps only the inputs of the blocks for backward, which runs each block again.

        Raises:
            ValueError: the blocks are reversible, and keep nothing in any case.
        """
        if enable and self.reversible:
            raise ValueError(CHECKPOINTING_REFUSED)
        self.grad_checkpointing = enable

    def advance(self, step: int, seed: int) -> None:
        """Tells each attention that a training step begins; what it draws is f(seed, step, layer)."""
        generator_of = seeded(seed, f"step {step}:")
        for layers in ("blocks", "decoder_blocks"):
            for layer, block in enumerate(getattr(self, layers)):
                block.attn.advance(step, generator_of(f"{layers}.{layer}.attn"))

    def flops(self) -> dict[str, int]:
        """Declared floating-point operations of one image's forward pass in pre-training, by module."""
        hidden, predicting = self.tokens.patches - self.visible, "blocks"
        counted = {"patch_embed": self.patch_embed.flops() * self.visible // self.tokens.patches}
        if isinstance(self.decoder_embed, nn.Linear):
            predicting = "decoder_blocks"
            for layer, block in enumerate(self.blocks):
                counted[f"blocks.{layer}.attn"] = block.attn.flops(self.visible)
                counted[f"blocks.{layer}.mlp"] = block.mlp.flops(1 + self.visible)
            counted["decoder_embed"] = 2 * (1 + self.visible) * self.decoder_embed.weight.numel()
        blocks = [*self._predicting[1]]
        for layer, block in enumerate(blocks):
            rows = hidden if layer == len(blocks) - 1 and self._any_order else None
            counted[f"{predicting}.{layer}.attn"] = block.attn.flops(self.tokens.patches, rows)
            counted[f"{predicting}.{layer}.mlp"] = block.mlp.flops(self.tokens.count if rows is None else rows)
        counted["decoder_pred"] = 2 * hidden * self.decoder_pred.weight.numel()
        return counted

    @property
    def _any_order(self) -> bool:
        """Whether no layer behind the mask tokens looks at the order of the patches."""
        return all(block.attn.order_free for block in self._predicting[1])

    @property
    def _predicting(self) -> tuple[Tensor, Iterable[Block], nn.Module]:
        """Positions, blocks and norm that mask tokens pass through: the decoder's, in SimMIM the encoder's."""
        if self.objective == "mae":
            return self.decoder_pos_embed, self.decoder_blocks, self.decoder_norm
        return self.pos_embed, self.blocks, self.norm

    def _blocks(self, attention: str, dim: int, depth: int, num_heads: int, patches: int) -> nn.ModuleList:
        hidden = int(dim * self.config["mlp_ratio"])
        options = {"mlp_layer": self.config["mlp_layer"], "style": self.config["block"], "reversible": self.reversible}
        layers = (
            build(written, dim, num_heads, self.tokens, layer=layer, patches=patches)
            for layer, written in enumerate(parse_layers(attention, depth))
        )
        return nn.ModuleList(Block(layer, hidden, **options) for layer in layers)

    def _patches(self, images: Float[Tensor, "b c y x"], visible: Int[Tensor, "b v"] | None) -> Float[Tensor, "b n w"]:
        """Only the visible patches are embedded; None for all."""
        if images.shape[1:] != (self.in_chans, *self.img_size):
            raise ValueError(
                f"images of {' x '.join(map(str, images.shape[1:]))} (channels, rows, columns) for a model of "
                f"in_chans={self.in_chans}, img_size={self.img_size}: resize them, or build the model for them"
            )
        return self.patch_embed(images, visible)

    def _encoded(self, images: Float[Tensor, "b c y x"], visible: Int[Tensor, "b v"] | None) -> Float[Tensor, "b m w"]:
        """The encoder's tokens of the visible patches; None for all."""
        patches = self._patches(images, visible)
        positions = self.pos_embed.to(patches.dtype).expand(len(images), -1, -1)
        patches = patches + off_grid(positions[:, 1:], visible)
        x = torch.cat([self.cls_token + positions[:, :1], patches], dim=1)
        return self.norm(self._through(self.blocks, x, visible, None))

    def _started(self, images: Float[Tensor, "b c y x"], visible: Int[Tensor, "b v"]) -> Float[Tensor, "b k w"]:
        """Class token and visible patches as the mask tokens meet them: behind the encoder, in SimMIM before it."""
        if self.objective == "mae":
            return self.decoder_embed(self._encoded(images, visible))
        patches = self._patches(images, visible)
        return torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)

    def _predicted(
        self, x: Float[Tensor, "b k w"], visible: Int[Tensor, "b v"], hidden: Int[Tensor, "b m"] | None
    ) -> Float[Tensor, "b m p"]:
        """Pixels of the hidden patches, or (None) of all in raster order."""
        table, blocks, norm = self._predicting
        positions = table.to(x.dtype)
        prefix, seen = (x[:, :1] + positions[:, :1]), x[:, 1:]
        places = positions[:, 1:].expand(len(x), -1, -1)
        if hidden is not None and self._any_order:
            # The hidden ones last: nothing is brought into raster order, and the last block computes only their rows.
            masked = self.mask_token + off_grid(places, hidden)
            x = torch.cat([prefix, seen + off_grid(places, visible), masked], dim=1)
            ids, rows = torch.cat([visible, hidden], dim=1), slice(1 + self.visible, None)
            return self.decoder_pred(norm(self._through(blocks, x, ids, rows)))
        # Autocast leaves tokens and weights in different types.
        whole = self.mask_token.to(x.dtype).expand(len(x), self.tokens.patches, -1)
        whole = whole.scatter(1, visible[..., None].expand_as(seen), seen)
        x = self._through(blocks, torch.cat([prefix, whole + places], dim=1), None, None)[:, 1:]
        return self.decoder_pred(norm(off_grid(x, hidden)))

    def _error_of_hidden(
        self, predicted: Float[Tensor, "b m p"], images: Float[Tensor, "b c y x"], hidden: Int[Tensor, "b m"]
    ) -> Float[Tensor, ""]:
        """The error of what was predicted of the hidden patches; on a CPU (as the MLP) a few images at a time."""

        def targets(few: slice) -> Float[Tensor, "c m p"]:
            return self.targets(off_grid(patchify(images[few], self.patch_embed.patch_size), hidden[few]))

        in_tiles = device_type(predicted.device) == "cpu" and not torch.compiler.is_compiling()
        # A gradient for the images goes through what is to be predicted, too.
        if in_tiles and ((self.training and not images.requires_grad) or not torch.is_grad_enabled()):
            return tiled_error(predicted, targets, absolute=self.objective == "simmim")
        return self.error(predicted, targets(slice(None)))

    def _through(
        self,
        blocks: Iterable[Block],
        x: Float[Tensor, "b k w"],
        patches: Int[Tensor, "b p"] | None,
        outputs: slice | None,
    ) -> Float[Tensor, "b m w"]:
        """Runs encoder or decoder; the last block puts out the wanted rows only."""
        if self.reversible:
            return run_reversible(blocks, x, patches, outputs)
        *earlier, last = blocks
        for block in earlier:
            x = self._run(block, x, patches, None)
        return self._run(last, x, patches, outputs)

    def _run(
        self, block: Block, x: Float[Tensor, "b k w"], patches: Int[Tensor, "b p"] | None, outputs: slice | None
    ) -> Float[Tensor, "b m w"]:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(block, x, patches, outputs, use_reentrant=False))
        return cast(Tensor, block(x, patches, outputs))

    def _sines(self, width: int) -> Float[Tensor, "1 n w"]:
        return sine_positions(self.tokens.grid, width, self.tokens.count)[None]

    def _fill_sines(self) -> None:
        self.pos_embed: Tensor = self._sines(self.embed_dim).to(self.cls_token.device)
        if self.objective == "mae":
            self.decoder_pos_embed: Tensor = self._sines(self.decoder_embed_dim).to(self.cls_token.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MaskedAutoencoder:
        """Moves and casts as every module, except that positions stay float32."""
        super()._apply(fn, recurse)
        self._fill_sines()
        return self
