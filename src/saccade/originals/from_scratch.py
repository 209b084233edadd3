"""Original 003's modules, block by block as it teaches them, so that the table of its layers is the one it printed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.originals.scaled_after import scaled_after


class Rearrange(nn.Module):
    """einops' "b e h w -> b (h w) e"."""

    def forward(self, x: Float[Tensor, "b e y x"]) -> Float[Tensor, "b n e"]:
        """Raster order."""
        return x.flatten(2).transpose(1, 2)


class Reduce(nn.Module):
    """einops' "b n e -> b e" by the mean, the class token's row among the others."""

    def forward(self, x: Float[Tensor, "b n e"]) -> Float[Tensor, "b e"]:
        """The mean of all tokens."""
        return x.mean(1)


class PatchEmbedding(nn.Module):
    """A convolution, then the class token in front and positions on top, which are the model's."""

    def __init__(self, in_channels: int, patch_size: int, emb_size: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Conv2d(in_channels, emb_size, patch_size, patch_size), Rearrange())

    def forward(
        self, x: Float[Tensor, "b c y x"], cls_token: Float[Tensor, "1 1 e"], positions: Float[Tensor, "n e"]
    ) -> Float[Tensor, "b n e"]:
        """Class token, patches, positions."""
        patches = self.projection(x)
        return torch.cat([cls_token.expand(len(patches), -1, -1), patches], dim=1) + positions


class MultiHeadAttention(nn.Module):
    """Queries, keys and values in one projection, the scale behind the softmax."""

    def __init__(self, emb_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(emb_size, emb_size * 3)
        self.att_drop = nn.Dropout(0.0)
        self.projection = nn.Linear(emb_size, emb_size)

    def forward(self, x: Float[Tensor, "b n e"]) -> Float[Tensor, "b n e"]:
        """einops' "b n (h d qkv) -> qkv b h n d", then as `scaled_after` says."""
        q, k, v = self.qkv(x).unflatten(2, (self.num_heads, -1, 3)).permute(4, 0, 2, 1, 3)
        y = scaled_after(q, k, v, x.shape[2], drop=self.att_drop)
        return self.projection(y.transpose(1, 2).flatten(2))


class ResidualAdd(nn.Module):
    """What a branch makes of the tokens, beside them."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Float[Tensor, "b n e"]) -> Float[Tensor, "b n e"]:
        """x + fn(x)."""
        return self.fn(x) + x


def encoder_block(emb_size: int, num_heads: int) -> nn.Sequential:
    """Attention, then the feed-forward block, each behind a norm and beside a shortcut."""
    feed_forward = nn.Sequential(
        nn.Linear(emb_size, 4 * emb_size), nn.GELU(), nn.Dropout(0.0), nn.Linear(4 * emb_size, emb_size)
    )
    return nn.Sequential(
        ResidualAdd(nn.Sequential(nn.LayerNorm(emb_size), MultiHeadAttention(emb_size, num_heads), nn.Dropout(0.0))),
        ResidualAdd(nn.Sequential(nn.LayerNorm(emb_size), feed_forward, nn.Dropout(0.0))),
    )


class ViT(nn.Module):
    """Its Vision Transformer: patches, encoder, and a head on the mean of all tokens.

    Class token and positions belong to the model and not to `PatchEmbedding`: torchsummary overlooks them either way,
    and a table in its form overlooks what is the model's own.
    """

    def __init__(
        self,
        in_channels: int = 3,
        patch_size: int = 16,
        emb_size: int = 768,
        img_size: int = 224,
        depth: int = 12,
        num_heads: int = 8,
        n_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, emb_size))
        self.positions = nn.Parameter(torch.randn((img_size // patch_size) ** 2 + 1, emb_size))
        self.embedding = PatchEmbedding(in_channels, patch_size, emb_size)
        self.encoder = nn.Sequential(*(encoder_block(emb_size, num_heads) for _ in range(depth)))
        self.head = nn.Sequential(Reduce(), nn.LayerNorm(emb_size), nn.Linear(emb_size, n_classes))

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b k"]:
        """Class scores."""
        return self.head(self.encoder(self.embedding(x, self.cls_token, self.positions)))
