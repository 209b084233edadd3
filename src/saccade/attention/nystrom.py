"""Nyström attention: the attention matrix is rebuilt from the attention of a few landmarks."""

from __future__ import annotations

from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import GeneratorOf, fill_uniform, unseeded
from saccade.attention.parts import at_least_float32, require_whole, softmax_attention, without_autocast
from saccade.attention.tokens import Tokens


class Nystrom(MultiHead):
    """The attention matrix is rebuilt from that of a few landmarks: softmax(QK̃ᵀ) softmax(Q̃K̃ᵀ)⁺ softmax(Q̃Kᵀ) V.

    Q̃ and K̃ are the means of Q and K over segments of the visible patches, which arrive ascending by id, so a segment
    is a run of neighbours; each prefix token is a landmark of its own. 1/√e stands in every softmax, once.

    Args:
        landmarks: segments of the patches.
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
        **shared: Unpack[Shared],
    ) -> None:
        require_whole("nystrom", 1, landmarks=landmarks, iterations=iterations)
        require_whole("nystrom", 0, convolution=convolution)
        if convolution and convolution % 2 == 0:
            raise ValueError(f"nystrom(convolution={convolution}): must be odd, or 0 for none")
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.landmarks = landmarks
        self.iterations = iterations
        self.convolution = convolution
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
        y = self.by_landmarks(q, k, v)
        return y if self.conv is None else y + self.conv(v)

    def by_landmarks(
        self, q: Float[Tensor, "b h n e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"]
    ) -> Float[Tensor, "b h n e"]:
        """K1 (K2⁺ (K3 V)): from the right, no matrix is larger than N x M or N x e."""
        q_marks, k_marks = (segment_means(x, self.tokens.prefix, self.landmarks) for x in (q, k))
        seen = softmax_attention(q_marks, k, v)
        with without_autocast(q.device):
            between = at_least_float32(q_marks * self.head_dim**-0.5) @ at_least_float32(k_marks).transpose(-2, -1)
            values = pseudo_inverse(between.softmax(-1), self.iterations) @ at_least_float32(seen)
        return softmax_attention(q, k_marks, values.to(v.dtype))

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """The whole matrix K1 Z K3 by the published steps, landmark by landmark; then the convolution as sums."""
        bounds = segment_bounds(q.shape[2], self.tokens.prefix, self.landmarks)
        q = q / self.head_dim**0.5
        q_marks, k_marks = (torch.stack([x[:, :, a:z].mean(2) for a, z in bounds], dim=2) for x in (q, k))
        k1, k2, k3 = (
            torch.softmax(torch.einsum("bhie,bhje->bhij", left, right), dim=-1)
            for left, right in ((q, k_marks), (q_marks, k_marks), (q_marks, k))
        )
        z = k2.mT / k2.sum(-2).max(-1).values[..., None, None]
        one = torch.eye(len(bounds), dtype=q.dtype, device=q.device)
        for _ in range(self.iterations):
            z = z @ (13 * one - k2 @ z @ (15 * one - k2 @ z @ (7 * one - k2 @ z))) / 4
        y = (k1 @ z @ k3) @ v
        if self.conv is None:
            return y
        half = self.convolution // 2
        padded = nn.functional.pad(v, (0, 0, half, half))
        taps = self.conv.weight[:, 0, :, 0].unbind(1)
        return y + sum(tap[:, None, None] * padded[:, :, i : i + v.shape[2]] for i, tap in enumerate(taps))

    def mix_flops(self, patches: int, rows: int) -> int:
        """Four thin products, K2 and its pseudo-inverse (four products a step), and the convolution."""
        n, m = self.tokens.prefix + patches, self.tokens.prefix + self.landmarks
        inverse = 8 * self.iterations * self.num_heads * m**3
        return 8 * n * m * self.dim + 4 * m**2 * self.dim + inverse + 2 * n * self.convolution * self.dim

    def parts(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None
    ) -> dict[str, Float[Tensor, "b n w"]]:
        """The landmarks, and beside them the convolution."""
        q, k, v = self.split(x, patches)
        parts = {"landmarks": self.merge(self.by_landmarks(q, k, v))}
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
        """As many landmarks as patches are softmax, at a higher price."""
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
        return {"landmarks": tokens.patches, "iterations": 40, "convolution": 0}


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
    alone, first, last = x.split([prefix, shorter * short, longer * (short + 1)], dim=2)
    runs = [run.unflatten(2, (many, -1)).mean(3) for run, many in ((first, shorter), (last, longer)) if many]
    return torch.cat([alone, *runs], dim=2)


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
