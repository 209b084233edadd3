"""From images to patch tokens: the patch embedding, the convolutional stem, and fixed 2-D sine positions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.attention.initial import GeneratorOf, fill_uniform
from saccade.attention.parts import off_grid


class PatchEmbed(nn.Module):
    """Cuts images into patches and projects each; timm's names, the weight kept as the convolution's that it equals.

    Args:
        img_size: rows and columns of the images, pixels.
        patch_size: rows and columns of a patch, pixels; they need not be equal.
        in_chans: channels of the images.
        embed_dim: width D of a token.

    Raises:
        ValueError: a patch that does not divide the image.
    """

    def __init__(self, img_size: tuple[int, int], patch_size: tuple[int, int], in_chans: int, embed_dim: int) -> None:
        super().__init__()
        if img_size[0] % patch_size[0] or img_size[1] % patch_size[1]:
            raise ValueError(
                f"img_size {_by(img_size)} with patch_size {_by(patch_size)}: the patch must divide the image; "
                f"take img_size {_by(_multiple(img_size, patch_size))}, or a patch of rows {_divisors(img_size[0])} "
                f"and columns {_divisors(img_size[1])}"
            )
        self.patch_size = patch_size
        self.grid_size = (img_size[0] // patch_size[0], img_size[1] // patch_size[1])
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(
        self, images: Float[Tensor, "b c y x"], visible: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b n w"]:
        """Projects the patches, or those of these ids, with one matrix product: it is faster than the convolution."""
        patches = off_grid(patchify(images, self.patch_size), visible)
        return nn.functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias)

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Torch's start of a convolution, which timm keeps."""
        reset_convolution(self.proj, generator_of, "proj")

    def flops(self) -> int:
        """One product of patches x pixels x width."""
        return 2 * self.grid_size[0] * self.grid_size[1] * self.proj.weight.numel()


class ConvStem(nn.Module):
    """A token a pixel by three 3 x 3 convolutions of stride 1 (c → D / 4 → D / 2 → D), with GELU between them.

    Raises:
        ValueError: a patch of more than one pixel, or a width that is no multiple of 4.
    """

    def __init__(self, img_size: tuple[int, int], patch_size: tuple[int, int], in_chans: int, embed_dim: int) -> None:
        super().__init__()
        if patch_size != (1, 1):
            raise ValueError(
                f'embed_layer="conv" with patch_size {_by(patch_size)}: '
                "the stem makes a token of every pixel, so patch_size must be 1"
            )
        if embed_dim % 4:
            raise ValueError(f'embed_layer="conv" with embed_dim={embed_dim}: embed_dim must be a multiple of 4')
        self.grid_size = img_size
        self.conv1 = nn.Conv2d(in_chans, embed_dim // 4, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(embed_dim // 4, embed_dim // 2, kernel_size=3, padding=1)
        self.conv3 = nn.Conv2d(embed_dim // 2, embed_dim, kernel_size=3, padding=1)

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b n w"]:
        """Convolves, then lays the pixels out in raster order."""
        gelu = nn.functional.gelu
        return self.conv3(gelu(self.conv2(gelu(self.conv1(images))))).flatten(2).transpose(1, 2)

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Torch's start of a convolution."""
        for name in ("conv1", "conv2", "conv3"):
            reset_convolution(getattr(self, name), generator_of, name)

    def flops(self) -> int:
        """Three convolutions over the whole grid."""
        weights = (self.conv1.weight, self.conv2.weight, self.conv3.weight)
        return 2 * self.grid_size[0] * self.grid_size[1] * sum(weight.numel() for weight in weights)


def patchify(images: Float[Tensor, "b c y x"], patch_size: tuple[int, int]) -> Float[Tensor, "b n p"]:
    """Cuts images into patches in raster order; the values of a patch run channel, row, column, as in a convolution."""
    rows, columns = patch_size
    b, c, y, x = images.shape
    cut = images.reshape(b, c, y // rows, rows, x // columns, columns)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(b, (y // rows) * (x // columns), c * rows * columns)


def sine_positions(grid: tuple[int, int], width: int, count: int) -> Float[Tensor, "n w"]:
    """Fixed 2-D positions: sines then cosines of the column, then of the row, at width / 4 frequencies each.

    Frequency i is 10000^(-i / (width / 4)). The order, and zeros for the tokens before the patches (as many as make the
    rows `count`), are those of He et al. 2022 (MAE), https://arxiv.org/abs/2111.06377, so that its weights fit.

    Raises:
        ValueError: a width that is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f'pos_embed="sine" with embed_dim={width}: embed_dim must be a multiple of 4')
    frequencies = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = (torch.arange(side, dtype=torch.float64)[:, None] * frequencies for side in grid)
    by_row = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(-1, grid[1], -1)
    by_column = torch.cat([columns.sin(), columns.cos()], dim=1)[None].expand(grid[0], -1, -1)
    table = torch.cat([by_column, by_row], dim=2).flatten(0, 1).float()
    return nn.functional.pad(table, (0, 0, count - len(table), 0))


def reset_convolution(convolution: nn.Conv2d, generator_of: GeneratorOf, name: str) -> None:
    """Weights and biases uniform within 1 / √(inputs of one output), torch's default."""
    bound = convolution.weight[0].numel() ** -0.5
    for part, values in convolution.named_parameters():
        fill_uniform(values, generator_of(f"{name}.{part}"), bound)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _multiple(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """The nearest size that the patch divides, the larger of two."""
    rows, columns = (max(1, (side + cut // 2) // cut) * cut for side, cut in zip(size, patch, strict=True))
    return rows, columns


def _divisors(side: int) -> str:
    return ", ".join(str(one) for one in range(1, side + 1) if side % one == 0)
