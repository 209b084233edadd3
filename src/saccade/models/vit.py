"""The Vision Transformer: patches, blocks with any attention, a pooled head; timm's words and state-dict keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from saccade.attention import build, parse_layers
from saccade.attention.base import Attention
from saccade.attention.initial import GeneratorOf, fill_normal, seeded, within
from saccade.attention.tokens import Tokens
from saccade.models.block import Block
from saccade.models.embed import ConvStem, PatchEmbed, sine_positions
from saccade.models.merging import TokenMerging, run_merging
from saccade.models.options import checked_options, rows_and_columns
from saccade.models.reversible import CHECKPOINTING_REFUSED, reversible_outputs, run_reversible

EMBED_LAYERS: dict[str, type[PatchEmbed | ConvStem]] = {"patch": PatchEmbed, "conv": ConvStem}


class VisionTransformer(nn.Module):
    """A Vision Transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929) with any attention.

    Weights of timm's VisionTransformer load as they are, where the options say the same.

    Args:
        img_size: side of the images, or (rows, columns), pixels.
        patch_size: side of a patch, or (rows, columns), pixels.
        in_chans: channels of the images.
        num_classes: outputs of the head; 0 for no head.
        global_pool: what the head reads: "token" the class token, "avg" the mean of the patches, "all" the mean of all
            tokens, "" each token by itself.
        embed_dim: width D of a token.
        depth: number of blocks.
        num_heads: heads H of each attention.
        mlp_ratio: hidden width of the MLP over D.
        mlp_layer: "mlp" (GELU) or "swiglu".
        attention: its written form, as in "nystrom(landmarks=16)", or layer by layer as in "local*8,softmax*4", or a
            subclass of Attention. Options such as qkv_bias and qk_norm are the attention's.
        embed_layer: "patch", or "conv" for three convolutions and a token a pixel.
        pos_embed: "learn", "sine" (fixed, 2-D) or "none".
        no_embed_class: positions for patches only, not for class and register tokens.
        class_token: whether there is one.
        reg_tokens: number of register tokens (Darcet et al. 2024, https://arxiv.org/abs/2309.16588).
        fc_norm: the last norm behind the pooling instead of before it; None: behind where the pooling is a mean.
        init_values: where layer scale starts; None for none.
        drop_rate: dropout before the head.
        pos_drop_rate: dropout behind the positions.
        proj_drop_rate: dropout behind the projections of attention and MLP.
        drop_path_rate: stochastic depth of the last block; it falls linearly to none in the first.
        block: "pre" (a norm before attention and MLP) or "xformers" (also one behind the MLP's shortcut, and separate
            queries, keys and values).
        reversible: two streams of tokens, whose activations backward makes anew instead of keeping them
            (`models/reversible.py`).
        token_merging: patches that each block merges into others, so that later ones have fewer (`models/merging.py`);
            the class token of softmax attention then sees as much of the image; 0 for none.
        seed: initial values are f(seed, parameter name).

    Raises:
        ValueError: sizes that do not fit each other, an unknown word, or an attention that refuses.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        mlp_layer: str = "mlp",
        attention: str | type[Attention] = "softmax",
        embed_layer: str = "patch",
        pos_embed: str = "learn",
        no_embed_class: bool = False,
        class_token: bool = True,
        reg_tokens: int = 0,
        fc_norm: bool | None = None,
        init_values: float | None = None,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        block: str = "pre",
        reversible: bool = False,
        token_merging: int = 0,
        *,
        seed: int = 0,
    ) -> None:
        given = {key: value for key, value in locals().items() if key not in ("self", "seed", "__class__")}
        super().__init__()
        self.config: dict[str, Any] = checked_options(given)
        self.name: str | None = None
        self.attention: str = self.config["attention"]
        self.img_size: tuple[int, int] = self.config["img_size"]
        self.in_chans, self.num_classes, self.global_pool = in_chans, num_classes, global_pool
        self.num_features = self.embed_dim = embed_dim
        self.num_prefix_tokens = int(class_token) + reg_tokens
        self.reversible = reversible
        self.grad_checkpointing = False

        patch = rows_and_columns("patch_size", patch_size)
        self.patch_embed = EMBED_LAYERS[embed_layer](self.img_size, patch, in_chans, embed_dim)
        self.tokens = Tokens(self.patch_embed.grid_size, self.num_prefix_tokens)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.empty(1, reg_tokens, embed_dim)) if reg_tokens else None
        self._add_positions()
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.blocks = cast(Sequence[Block], nn.ModuleList(self._block(layer) for layer in range(depth)))
        self.norm = nn.Identity() if self.config["fc_norm"] else nn.LayerNorm(embed_dim, eps=1e-6)
        self.fc_norm = nn.LayerNorm(embed_dim, eps=1e-6) if self.config["fc_norm"] else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()
        self.reset_parameters(seed)

    def forward(
        self, images: Float[Tensor, "b c y x"], noise: Float[Tensor, "b u"] | None = None
    ) -> Float[Tensor, "b *n k"]:
        """Classifies images; of the last block only the rows that the head reads are computed.

        Args:
            images: normalised, of the model's size.
            noise: 2 x depth numbers an image, uniform in 0..1, which decide stochastic depth in training; None draws
                them from torch's generator.

        Raises:
            ValueError: images of another size or number of channels.
        """
        wanted = slice(0, 1) if self.global_pool == "token" else None
        return self.forward_head(self._features(images, noise, wanted))

    def forward_features(
        self, images: Float[Tensor, "b c y x"], noise: Float[Tensor, "b u"] | None = None
    ) -> Float[Tensor, "b n w"]:
        """All tokens behind the last block and norm."""
        return self._features(images, noise, None)

    def forward_head(self, x: Float[Tensor, "b n w"], pre_logits: bool = False) -> Float[Tensor, "b *m k"]:
        """Pools and classifies; with `pre_logits`, all but the last product."""
        x = self.head_drop(self.fc_norm(self._pooled(x)))
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        images: Float[Tensor, "b c y x"],
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """What the blocks put out, as timm's method of that name.

        Args:
            images: normalised, of the model's size.
            indices: the last n blocks, the blocks of these indices, or (None) all.
            return_prefix_tokens: pairs of (patches, prefix) instead of patches alone.
            norm: the last norm on each.
            stop_early: does not run the blocks behind the last one asked for; then the features are that block's.
            output_fmt: "NCHW" (images of the grid) or "NLC" (tokens).
            intermediates_only: the list alone, not (features, list).

        Raises:
            ValueError: a block that is not there, or another format.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f'output_fmt={output_fmt!r}: must be "NCHW" or "NLC"')
        if self.config["token_merging"]:
            raise ValueError(
                "forward_intermediates with token_merging: merged tokens have no place; take forward_features"
            )
        wanted = block_indices(indices, len(self.blocks))
        last = max(wanted) + 1 if stop_early else len(self.blocks)
        outputs = list(islice(self._outputs(self._embedded(images), self._noise_for(images, None), None), last))
        taken = [self.norm(outputs[index]) if norm else outputs[index] for index in wanted]
        prefix, grid = self.num_prefix_tokens, self.tokens.grid
        intermediates: list[Any] = [
            y[:, prefix:].transpose(1, 2).unflatten(2, grid).contiguous() if output_fmt == "NCHW" else y[:, prefix:]
            for y in taken
        ]
        if return_prefix_tokens and prefix:
            intermediates = [(y, one[:, :prefix]) for y, one in zip(intermediates, taken, strict=True)]
        return intermediates if intermediates_only else (self.norm(outputs[-1]), intermediates)

    def reset_parameters(self, seed: int = 0) -> None:
        """Refills everything with f(seed, parameter name): models with other attentions start equal in what they share.

        Projections start by Xavier's uniform, as in the first ViT and in MAE; the rest as timm: positions and head by
        a truncated normal of 0.02, class and register tokens of 1e-6, convolutions as torch's do.
        """
        generator_of = seeded(seed)
        self.patch_embed.reset_parameters(within(generator_of, "patch_embed"))
        for name in ("cls_token", "reg_token"):
            if (token := getattr(self, name)) is not None:
                fill_normal(token, generator_of(name), std=1e-6)
        if isinstance(self.pos_embed, nn.Parameter):
            fill_normal(self.pos_embed, generator_of("pos_embed"))
        self._fill_sines()
        for layer, block in enumerate(self.blocks):
            block.reset_parameters(within(generator_of, f"blocks.{layer}"))
        for norm in (self.norm, self.fc_norm):
            if isinstance(norm, nn.LayerNorm):
                norm.reset_parameters()
        self._reset_head(generator_of)

    def _reset_head(self, generator_of: GeneratorOf) -> None:
        if isinstance(self.head, nn.Linear):
            fill_normal(self.head.weight, generator_of("head.weight"))
            nn.init.zeros_(self.head.bias)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, *, seed: int = 0) -> None:
        """Puts a new head on the model, and another pooling where one is named; the last norm stays where it is."""
        pool = self.global_pool if global_pool is None else global_pool
        self.config = checked_options({**self.config, "num_classes": num_classes, "global_pool": pool})
        self.num_classes, self.global_pool = num_classes, pool
        like = next(self.parameters())
        self.head = nn.Identity()
        if num_classes:
            self.head = nn.Linear(self.embed_dim, num_classes, device=like.device, dtype=like.dtype)
        self._reset_head(seeded(seed))

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters of two and more dimensions that weight decay should leave alone."""
        return {"pos_embed", "cls_token", "reg_token"}

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
        for layer, block in enumerate(self.blocks):
            block.attn.advance(step, generator_of(f"blocks.{layer}.attn"))

    def flops(self, rows_as_run: bool = True) -> dict[str, int]:
        """Declared floating-point operations of one image's forward pass, by module.

        Args:
            rows_as_run: counts the rows of the last block that `forward` computes; False counts all of them.
        """
        counted, patches = {"patch_embed": self.patch_embed.flops()}, self.tokens.patches
        for layer, block in enumerate(self.blocks):
            some = rows_as_run and self.global_pool == "token" and layer == len(self.blocks) - 1
            counted[f"blocks.{layer}.attn"] = block.attn.flops(patches, 1 if some else None)
            if isinstance(block.merge, TokenMerging) and not some:
                counted[f"blocks.{layer}.merge"] = block.merge.flops(patches, block.attn.dim // block.attn.num_heads)
                patches = block.merge.left(patches)
            counted[f"blocks.{layer}.mlp"] = block.mlp.flops(1 if some else self.num_prefix_tokens + patches)
        if isinstance(self.head, nn.Linear):
            counted["head"] = 2 * self.head.weight.numel() * (1 if self.global_pool else self.tokens.count)
        return counted

    def _block(self, layer: int) -> Block:
        config = self.config
        depth, dim = config["depth"], config["embed_dim"]
        written = parse_layers(config["attention"], depth)[layer]
        return Block(
            build(written, dim, config["num_heads"], self.tokens, layer=layer),
            int(dim * config["mlp_ratio"]),
            style=config["block"],
            reversible=config["reversible"],
            mlp_layer=config["mlp_layer"],
            init_values=config["init_values"],
            proj_drop=config["proj_drop_rate"],
            drop_path=config["drop_path_rate"] * layer / max(depth - 1, 1),
            merge=TokenMerging(merged, self.tokens) if (merged := config["token_merging"]) else None,
        )

    def _add_positions(self) -> None:
        rows = self.tokens.patches if self.config["no_embed_class"] else self.tokens.count
        if self.config["pos_embed"] == "learn":
            self.pos_embed: Tensor | None = nn.Parameter(torch.empty(1, rows, self.embed_dim))
        elif self.config["pos_embed"] == "sine":
            self.register_buffer("pos_embed", sine_positions(self.tokens.grid, self.embed_dim, rows)[None])
        else:
            self.pos_embed = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VisionTransformer:
        """Moves and casts as every module, except that fixed positions stay float32."""
        super()._apply(fn, recurse)
        self._fill_sines()
        return self

    def _fill_sines(self) -> None:
        if self.config["pos_embed"] == "sine" and self.pos_embed is not None:
            rows, device = self.pos_embed.shape[1], self.pos_embed.device
            self.pos_embed = sine_positions(self.tokens.grid, self.embed_dim, rows)[None].to(device)

    def _embedded(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b n w"]:
        """Class and register tokens, patches, positions."""
        if images.shape[1:] != (self.in_chans, *self.img_size):
            raise ValueError(
                f"images of {' x '.join(map(str, images.shape[1:]))} (channels, rows, columns) for a model of "
                f"in_chans={self.in_chans}, img_size={self.img_size}: resize them, or build the model for them"
            )
        prefix = [one.expand(len(images), -1, -1) for one in (self.cls_token, self.reg_token) if one is not None]
        x = self.patch_embed(images)
        if self.pos_embed is None:
            return self.pos_drop(torch.cat([*prefix, x], dim=1))
        positions = self.pos_embed.to(x.dtype)
        if self.config["no_embed_class"]:
            return self.pos_drop(torch.cat([*prefix, x + positions], dim=1))
        return self.pos_drop(torch.cat([*prefix, x], dim=1) + positions)

    def _outputs(
        self, x: Float[Tensor, "b n w"], noise: Float[Tensor, "b u"] | None, wanted: slice | None
    ) -> Iterator[Tensor]:
        """What each block puts out; the last one puts out the wanted rows only."""
        if self.reversible:
            # Only `forward_intermediates` asks block by block, and it wants all rows.
            yield from reversible_outputs(self.blocks, x, noise)
            return
        for layer, block in enumerate(self.blocks):
            rows = wanted if layer == len(self.blocks) - 1 else None
            mine = None if noise is None else noise[:, 2 * layer : 2 * layer + 2]
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, None, rows, mine, use_reentrant=False)
            else:
                x = block(x, None, rows, mine)
            yield x

    def _features(
        self, images: Float[Tensor, "b c y x"], noise: Float[Tensor, "b u"] | None, wanted: slice | None
    ) -> Float[Tensor, "b n w"]:
        x, noise = self._embedded(images), self._noise_for(images, noise)
        if self.reversible:
            return self.norm(run_reversible(self.blocks, x, None, wanted, noise))
        if self.config["token_merging"]:
            return self.norm(run_merging(self.blocks, x, wanted, noise, checkpointing=self.grad_checkpointing))
        for last in self._outputs(x, noise, wanted):
            x = last
        return self.norm(x)

    def _noise_for(
        self, images: Float[Tensor, "b c y x"], noise: Float[Tensor, "b u"] | None
    ) -> Float[Tensor, "b u"] | None:
        if not self.training or self.config["drop_path_rate"] == 0:
            return None
        if noise is None:
            return torch.rand(len(images), 2 * len(self.blocks), device=images.device)
        if noise.shape[1] != 2 * len(self.blocks):
            raise ValueError(f"noise of {noise.shape[1]} numbers an image: must be 2 x depth = {2 * len(self.blocks)}")
        return noise

    def _pooled(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b *m w"]:
        if self.global_pool == "token":
            return x[:, 0]
        if self.global_pool == "avg":
            return x[:, self.num_prefix_tokens :].mean(dim=1)
        return x.mean(dim=1) if self.global_pool == "all" else x


def block_indices(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """The blocks meant: the last n, those listed (from the end where negative), or all.

    Raises:
        ValueError: a block that is not there.
    """
    if indices is None or isinstance(indices, int):
        count = depth if indices is None else indices
        listed = list(range(depth - count, depth)) if 0 < count <= depth else []
    else:
        listed = [index + depth if index < 0 else index for index in indices]
    if not listed or not all(0 <= index < depth for index in listed):
        raise ValueError(f"indices={indices}: must be the last 1..{depth} blocks, or a list of blocks 0..{depth - 1}")
    return listed
