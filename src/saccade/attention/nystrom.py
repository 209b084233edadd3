"""Nyström attention: the attention matrix is rebuilt from the attention of a few landmarks."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import GeneratorOf, fill_uniform, unseeded
from saccade.attention.parts import (
    at_least_float32,
    coordinates,
    require_whole,
    softmax_attention,
    visible_ids,
    without_autocast,
)
from saccade.attention.tokens import Tokens


class Nystrom(MultiHead):
    """The attention matrix is rebuilt from that of a few landmarks: softmax(QK̃ᵀ) softmax(Q̃K̃ᵀ)⁺ softmax(Q̃Kᵀ) V.

    Q̃ and K̃ are the means of Q and K over segments of the visible patches, which arrive ascending by id, so a segment
    is a run of neighbours; each prefix token is a landmark of its own. 1/√e stands in every softmax, once.

    Args:
        landmarks: segments of the patches, or blocks of the grid.
        two_d: the means are over √M x √M blocks of the grid instead, of their visible patches alone; a block that has
            none is no landmark of that image. Ours: the paper knows no grid.
        iterations: steps towards the pseudo-inverse. Six, as in the paper: not converged when scores are flat, and so
            it was published.
        convolution: length of a depthwise convolution of V along the tokens, one kernel a head, added to the output; 0
            for none, else odd.
    """

    paper = "Xiong et al. 2021, https://arxiv.org/abs/2102.03902"
    cost = "N M D"
    any_length = False
    free_of_order = False
    needs_grid = False
    exact_when = "landmarks = patches, iterations → ∞"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        landmarks: int = 8,
        iterations: int = 6,
        convolution: int = 0,
        two_d: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        require_whole("nystrom", 1, landmarks=landmarks, iterations=iterations)
        require_whole("nystrom", 0, convolution=convolution)
        if convolution and convolution % 2 == 0:
            raise ValueError(f"nystrom(convolution={convolution}): must be odd, or 0 for none")
        if two_d and math.isqrt(landmarks) ** 2 != landmarks:
            raise ValueError(
                f"nystrom(two_d=True, landmarks={landmarks}): landmarks must be a square number, as many blocks down "
                "as across"
            )
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.landmarks = landmarks
        self.iterations = iterations
        self.convolution = convolution
        self.two_d = two_d
        self.conv = (
            nn.Conv2d(
                num_heads, num_heads, (convolution, 1), padding=(convolution // 2, 0), groups=num_heads, bias=False
            )
            if convolution
            else None
        )
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """By landmarks, plus the convolution where there is one."""
        y = self.by_landmarks(q, k, v, patches)
        return y if self.conv is None else y + self.conv(v)

    def by_landmarks(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """The function `nystrom_attention` of the means of this layer's segments or blocks."""
        if not self.two_d:
            q_marks, k_marks = (segment_means(x, self.tokens.prefix, self.landmarks) for x in (q, k))
            return nystrom_attention(q, k, v, q_marks, k_marks, self.iterations)
        members = block_members(self.tokens, patches, math.isqrt(self.landmarks), q.device)
        q_marks, k_marks = (block_means(x, self.tokens.prefix, members) for x in (q, k))
        # On the whole grid no block is empty.
        present = None if patches is None else nn.functional.pad(members.any(2), (self.tokens.prefix, 0), value=True)
        return nystrom_attention(q, k, v, q_marks, k_marks, self.iterations, present)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """The whole matrix K1 Z K3 by the published steps, image by image; then the convolution as sums."""
        ids = visible_ids(self.tokens, patches)
        groups = [self._groups(of_image, q.shape[2]) for of_image in ids.expand(len(q), -1).tolist()]
        y = torch.cat([self._rebuilt(*one) for one in zip(q.split(1), k.split(1), v.split(1), groups, strict=True)])
        if self.conv is None:
            return y
        half = self.convolution // 2
        padded = nn.functional.pad(v, (0, 0, half, half))
        taps = self.conv.weight[:, 0, :, 0].unbind(1)
        return y + sum(tap[:, None, None] * padded[:, :, i : i + v.shape[2]] for i, tap in enumerate(taps))

    def _groups(self, ids: list[int], count: int) -> list[list[int]]:
        """The tokens of each landmark of an image, in order; none of a landmark without any."""
        prefix = self.tokens.prefix
        if not self.two_d:
            return [list(range(a, z)) for a, z in segment_bounds(count, prefix, self.landmarks)]
        (rows, columns), side = self.tokens.grid, math.isqrt(self.landmarks)
        blocks: list[list[int]] = [[] for _ in range(self.landmarks)]
        for token, place in enumerate(ids, start=prefix):
            row, column = divmod(place, columns)
            blocks[row * side // rows * side + column * side // columns].append(token)
        return [[token] for token in range(prefix)] + [block for block in blocks if block]

    def _rebuilt(
        self,
        q: Float[Tensor, "1 h n e"],
        k: Float[Tensor, "1 h n e"],
        v: Float[Tensor, "1 h n e"],
        groups: list[list[int]],
    ) -> Float[Tensor, "1 h n e"]:
        q = q / self.head_dim**0.5
        q_marks, k_marks = (torch.stack([x[:, :, group].mean(2) for group in groups], dim=2) for x in (q, k))
        k1, k2, k3 = (
            torch.softmax(torch.einsum("bhie,bhje->bhij", left, right), dim=-1)
            for left, right in ((q, k_marks), (q_marks, k_marks), (q_marks, k))
        )
        z = k2.mT / k2.sum(-2).max(-1).values[..., None, None]
        one = torch.eye(len(groups), dtype=q.dtype, device=q.device)
        for _ in range(self.iterations):
            z = z @ (13 * one - k2 @ z @ (15 * one - k2 @ z @ (7 * one - k2 @ z))) / 4
        return (k1 @ z @ k3) @ v

    def mix_flops(self, patches: int, rows: int) -> int:
        """Four thin products, K2 and its pseudo-inverse (four products a step), convolution, and sums over blocks."""
        n, m = self.tokens.prefix + patches, self.tokens.prefix + self.landmarks
        inverse = 8 * self.iterations * self.num_heads * m**3
        blocks = 4 * patches * self.landmarks * self.dim if self.two_d else 0
        return 8 * n * m * self.dim + 4 * m**2 * self.dim + inverse + 2 * n * self.convolution * self.dim + blocks

    def parts(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None
    ) -> dict[str, Float[Tensor, "b n w"]]:
        """The landmarks, and beside them the convolution."""
        q, k, v = self.split(x, patches)
        parts = {"landmarks": self.merge(self.by_landmarks(q, k, v, patches))}
        if self.conv is not None:
            parts["convolution"] = self.conv(v).transpose(1, 2).flatten(2) @ self.proj.weight.T
        return parts

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """Everywhere through the landmarks; half the kernel to either side through the convolution."""
        everywhere = super().reach(patches)
        if part != "convolution":
            return everywhere
        place = torch.arange(len(everywhere))
        return (place[:, None] - place).abs() <= self.convolution // 2

    def refusal(self, patches: int) -> str | None:
        """As many landmarks as patches are softmax, at a higher price; a block of the grid is no part of a patch."""
        rows, columns = self.tokens.grid
        if self.two_d and self.landmarks > min(rows, columns) ** 2:
            return (
                f"nystrom(two_d=True, landmarks={self.landmarks}) on a grid of {rows} x {columns}: there must be no "
                f"more blocks a side than patches, so landmarks must be 1..{min(rows, columns) ** 2}"
            )
        if self.landmarks < patches:
            return None
        n = self.tokens.prefix + patches
        allowed = f"must be 1..{patches - 1}" if patches > 1 else "need at least 2 patches"
        return (
            f"nystrom(landmarks={self.landmarks}) on {n} tokens, {patches} of them patches: landmarks {allowed}; "
            "more would be softmax under another name"
        )

    @property
    def mix_order_free(self) -> bool:
        """Only where the one segment is everything, and nothing slides along the tokens."""
        return self.conv is None and self.landmarks == 1

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead; the convolution starts as torch's own do."""
        super().reset_parameters(generator_of)
        if self.conv is not None:
            fill_uniform(self.conv.weight, generator_of("conv.weight"), self.convolution**-0.5)

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """A quarter of the patches, eight at most."""
        return {"landmarks": max(1, min(8, patches // 4))}

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """Each patch is its own landmark, the iteration has converged, and nothing is added."""
        return {"landmarks": tokens.patches, "iterations": 40, "convolution": 0, "two_d": False}


def nystrom_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h s e"],
    v: Float[Tensor, "b h s e"],
    q_marks: Float[Tensor, "b h m e"],
    k_marks: Float[Tensor, "b h m e"],
    iterations: int = 6,
    present: Bool[Tensor, "b m"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """K1 (K2⁺ (K3 V)): from the right, no matrix is larger than N x M or N x e.

    Args:
        q: queries.
        k: keys.
        v: values.
        q_marks: landmarks of the queries, such as `segment_means`.
        k_marks: those of the keys.
        iterations: steps towards the pseudo-inverse.
        present: which landmarks there are; the result is as of those alone.
    """
    seen = softmax_attention(q_marks.to(k.dtype), k, v)
    with without_autocast(q.device):
        between = at_least_float32(q_marks * q.shape[-1] ** -0.5) @ at_least_float32(k_marks).transpose(-2, -1)
        if present is None:
            weights = between.softmax(-1)
        else:
            # A row and a column of zeros stay zeros in the pseudo-inverse, and change nothing else of it.
            weights = between.masked_fill(~present[:, None, None], -torch.inf).softmax(-1) * present[:, None, :, None]
        values = (pseudo_inverse(weights, iterations) @ at_least_float32(seen)).to(v.dtype)
    if present is None:
        return softmax_attention(q, k_marks.to(q.dtype), values)
    return nn.functional.scaled_dot_product_attention(q, k_marks.to(q.dtype), values, attn_mask=present[:, None, None])


def block_members(
    tokens: Tokens, patches: Int[Tensor, "b p"] | None, side: int, device: torch.device
) -> Bool[Tensor, "#b m p"]:
    """Whether a patch lies in a block: `side` blocks down and across, whose sides differ by one patch at most."""
    ids = visible_ids(tokens, patches, device)
    row, column = (place * side // length for place, length in zip(coordinates(tokens, ids), tokens.grid, strict=True))
    return (row * side + column)[:, None] == torch.arange(side**2, device=device)[:, None]


def block_means(x: Float[Tensor, "b h n e"], prefix: int, members: Bool[Tensor, "#b l p"]) -> Float[Tensor, "b h m e"]:
    """Prefix tokens alone, then the mean of each block's patches; zeros where a block has none."""
    alone, patches = x.transpose(1, 2).flatten(2).tensor_split([prefix], dim=1)
    with without_autocast(x.device):
        wide = at_least_float32(patches)
        sums = members.to(wide.dtype).expand(len(x), -1, -1) @ wide
        means = sums / members.sum(2, keepdim=True).clamp_min(1)
    return torch.cat([alone.to(means.dtype), means], dim=1).unflatten(2, (x.shape[1], x.shape[3])).transpose(1, 2)


def segment_bounds(count: int, prefix: int, landmarks: int) -> list[tuple[int, int]]:
    """First token of each landmark and the one after its last: prefix tokens alone, then segments of the patches.

    Where the landmarks do not divide the patches, the last segments are one patch longer.
    """
    short, longer = divmod(count - prefix, landmarks)
    sizes = [1] * prefix + [short] * (landmarks - longer) + [short + 1] * longer
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def segment_means(x: Float[Tensor, "b h n e"], prefix: int, landmarks: int) -> Float[Tensor, "b h m e"]:
    """The mean of each landmark's tokens, segments of one length at a time.

    Raises:
        ValueError: fewer patches than landmarks.
    """
    patches = x.shape[2] - prefix
    if patches < landmarks:
        raise ValueError(f"{landmarks} landmarks of {patches} patches: there must be at least as many patches")
    short, longer = divmod(patches, landmarks)
    shorter = landmarks - longer
    if not prefix and not longer:
        return _means(x, landmarks)
    alone, first, last = x.split([prefix, shorter * short, longer * (short + 1)], dim=2)
    return torch.cat([alone, *(_means(run, many) for run, many in ((first, shorter), (last, longer)) if many)], dim=2)


def _means(x: Float[Tensor, "b h n e"], segments: int) -> Float[Tensor, "b h m e"]:
    """Of segments of one length; sums are divided, for the backward of a mean divides every token's gradient."""
    return x.unflatten(2, (segments, -1)).sum(3) / (x.shape[2] // segments)


def pseudo_inverse(matrix: Float[Tensor, "b h m m"], iterations: int) -> Float[Tensor, "b h m m"]:
    """Z ← ¼ Z(13 I - AZ(15 I - AZ(7 I - AZ))) from Z = Aᵀ / largest column sum, as in Razavi et al. 2014.

    Each matrix has a start of its own: with the largest sum of the whole batch, as published, an image's output would
    depend on its batch mates.
    """
    a = matrix.flatten(0, 1)
    z = a.mT / a.sum(-2, keepdim=True).amax(-1, keepdim=True)
    for _ in range(iterations):
        az = a @ z
        inner = torch.baddbmm(az, az, az, beta=7, alpha=-1)
        inner = torch.baddbmm(az, az, inner, beta=15, alpha=-1)
        z = torch.baddbmm(z, z, inner, beta=3.25, alpha=-0.25)
    return z.unflatten(0, matrix.shape[:2])
