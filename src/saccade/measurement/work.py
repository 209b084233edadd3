"""Work: what a kind of model does when it trains and when it is used, and the stacks of blocks that do it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.attention.tokens import Tokens
from saccade.models.block import Block
from saccade.models.mae import MaskedAutoencoder
from saccade.models.vit import VisionTransformer

Model = VisionTransformer | MaskedAutoencoder


@dataclass(frozen=True)
class Stack:
    """Blocks one behind the other, through which the same tokens pass.

    Attributes:
        name: "encoder" or "decoder".
        blocks: the first one first.
        attention: as its user wrote it.
        heads: of each attention.
        tokens: prefix and whole grid.
        patches: how many of the grid are there in a training step.
        rows: how many of the last block's rows are computed there; None for all.
    """

    name: str
    blocks: tuple[Block, ...]
    attention: str
    heads: int
    tokens: Tokens
    patches: int
    rows: int | None = None

    @property
    def width(self) -> int:
        """Of a token."""
        return self.blocks[0].attn.dim

    @property
    def count(self) -> int:
        """Tokens in a training step, the prefix included."""
        return self.tokens.prefix + self.patches


@dataclass(frozen=True)
class Classifying:
    """Class scores of whole images."""

    model: VisionTransformer

    @property
    def stacks(self) -> list[Stack]:
        """The one that there is."""
        model = self.model
        rows = 1 if model.global_pool == "token" else None
        heads = model.config["num_heads"]
        blocks, tokens = tuple(model.blocks), model.tokens
        return [Stack("encoder", blocks, model.attention, heads, tokens, tokens.patches, rows)]

    @property
    def inference_flops(self) -> int:
        """Those of a step's forward pass."""
        return sum(self.model.flops().values())

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b *n w"]:
        """Class scores."""
        return self.model(images)

    def loss(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, ""]:
        """Cross entropy with made-up labels."""
        logits = self.forward(images)
        if logits.ndim != 2:
            raise ValueError("a training step needs class scores for each image, so a pooled head: set global_pool")
        labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
        return nn.functional.cross_entropy(logits.float(), labels)

    def answer(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b *n w"]:
        """Class scores: the same."""
        return self.forward(images)


@dataclass(frozen=True)
class Pretraining:
    """Hidden patches predicted from visible ones; what is used afterwards is the encoder, on whole images."""

    model: MaskedAutoencoder

    @property
    def stacks(self) -> list[Stack]:
        """The encoder, which sees the visible patches (in SimMIM all), and the decoder, which predicts the others."""
        model, config = self.model, self.model.config
        stacks = {
            "encoder": (model.blocks, model.attention, config["num_heads"], model.seen),
            "decoder": (
                model.decoder_blocks,
                model.decoder_attention,
                config["decoder_num_heads"],
                model.tokens.patches,
            ),
        }
        return [
            Stack(name, tuple(blocks), attention, heads, model.tokens, patches)
            for name, (blocks, attention, heads, patches) in stacks.items()
            if len(blocks)
        ]

    @property
    def inference_flops(self) -> int:
        """Those of the encoder with all patches."""
        tokens, embed = self.model.tokens, self.model.patch_embed
        blocks = (block.attn.flops(tokens.patches) + block.mlp.flops(tokens.count) for block in self.model.blocks)
        return embed.flops() + sum(blocks)

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, ""]:
        """The reconstruction's loss; which patches are hidden differs from image to image, not from step to step."""
        return self.model(images, self._noise(len(images)).to(images.device)).loss

    def loss(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, ""]:
        """The same."""
        return self.forward(images)

    def answer(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b *n w"]:
        """The encoder's tokens."""
        return self.model.forward_features(images)

    def _noise(self, count: int) -> Float[Tensor, "b n"]:
        return torch.rand(count, self.model.tokens.patches, generator=torch.Generator().manual_seed(0))


Work = Classifying | Pretraining
"""What a kind of model does: `forward` and `loss` of a training step, the `answer` that a user of the trained model
wants, its declared `inference_flops` for one image, and the `stacks` of blocks, of which a user keeps the first."""


def work_of(model: Model) -> Work:
    """What such a model does."""
    return Pretraining(model) if isinstance(model, MaskedAutoencoder) else Classifying(model)
