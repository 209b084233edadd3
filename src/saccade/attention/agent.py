"""Agent attention: a few agents, the mean queries of regions, ask all tokens and are asked by all tokens."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import GeneratorOf, fill_normal, fill_uniform, unseeded, within
from saccade.attention.parts import (
    at_least_float32,
    coordinates,
    faster_kernel,
    off_grid,
    onto_grid,
    require_whole,
    resize,
    softmax_attention,
    without_autocast,
)
from saccade.attention.tokens import Tokens

# Side of the learned table that is enlarged to the grid.
TABLE_SIDE = 7


class Agent(MultiHead):
    """A few agents ask all tokens, and every token asks the agents: softmax(QAᵀ/√e) softmax(AKᵀ/√e) V + DW(V).

    Agents A are the mean queries of a x a regions of the grid; where a does not divide it, regions overlap. DW is a
    depthwise 3 x 3 convolution on the patches. Of a visible subset a region takes the patches that it has; a region
    that has none is no agent. Prefix tokens ask and are asked, but are in no region and not convolved. Every output
    depends on all queries.

    Args:
        agents: a, regions along each side of the grid; there are a² agents.
        convolution: adds DW(V).
        agent_bias: learned numbers are added to both scores, for each head, agent and place on the grid: a table of
            7 x 7, enlarged to the grid, plus one for the row and one for the column; one for each prefix token. It is
            the paper's "bias", which here is the word for that of the projections.
    """

    paper = "Han et al. 2023, https://arxiv.org/abs/2312.08874"
    cost = "N a² D"
    any_length = False
    free_of_order = False
    needs_grid = True
    exact_when = "never"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        agents: int = 3,
        convolution: bool = True,
        agent_bias: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        require_whole("agent", 1, agents=agents)
        for name, value in (("convolution", convolution), ("agent_bias", agent_bias)):
            if type(value) is not bool:
                raise ValueError(f"agent({name}={value!r}): {name} must be True or False")
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.agents = agents
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if convolution else None
        self.bias_of_agents = PlaceBias(num_heads, agents**2, tokens) if agent_bias else None
        self.bias_of_tokens = PlaceBias(num_heads, agents**2, tokens) if agent_bias else None
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Through the agents, plus the convolution where there is one."""
        y = self.by_agents(q, k, v, patches)
        return y if self.conv is None else y + self._heads(self._convolved(v, patches))

    def by_agents(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Both softmaxes; an agent without patches is asked by nobody."""
        agents, absent = mean_queries(q, patches, self.tokens, self.agents)
        of_agents = of_tokens = None
        if self.bias_of_agents is not None and self.bias_of_tokens is not None:
            of_agents = self.bias_of_agents(patches, self.tokens)
            of_tokens = self.bias_of_tokens(patches, self.tokens).mT
        if absent is not None:
            zeros = q.new_zeros(len(q), 1, 1, absent.shape[1]) if of_tokens is None else of_tokens
            of_tokens = zeros.masked_fill(absent[:, None, None], float("-inf"))
        return agent_attention(q, agents, k, v, of_agents, of_tokens)

    def _convolved(self, v: Float[Tensor, "b h n e"], patches: Int[Tensor, "b p"] | None) -> Float[Tensor, "b n w"]:
        """DW(V) of the patches, hidden ones being zero; zero for the prefix."""
        assert self.conv is not None
        prefix = self.tokens.prefix
        visible = v[:, :, prefix:].transpose(1, 2).flatten(2)
        y = self.conv(_maps(onto_grid(visible, patches, self.tokens), self.tokens))
        return nn.functional.pad(off_grid(y.flatten(2).mT, patches), (0, 0, prefix, 0))

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Agents as sums over who belongs to them, both maps in full, and the convolution tap by tap."""
        grid = torch.arange(self.tokens.patches, device=q.device)
        ids = grid.expand(len(q), -1) if patches is None else patches
        belongs = _regions(self.tokens, self.agents).to(q)[:, ids].transpose(0, 1)
        many = belongs.sum(-1)
        agents = torch.einsum("bap,bhpe->bhae", belongs, q[:, :, self.tokens.prefix :])
        agents = agents / many.clamp_min(1)[:, None, :, None]
        asked = torch.einsum("bhae,bhne->bhan", agents, k) / self.head_dim**0.5
        asking = torch.einsum("bhne,bhae->bhna", q, agents) / self.head_dim**0.5
        if self.bias_of_agents is not None and self.bias_of_tokens is not None:
            asked = asked + self.bias_of_agents.reference(ids, self.tokens)
            asking = asking + self.bias_of_tokens.reference(ids, self.tokens).mT
        weights = asking.exp() * (many > 0)[:, None, None]
        weights = weights / weights.sum(-1, keepdim=True)
        y = torch.einsum("bhia,bhaj,bhje->bhie", weights, asked.softmax(-1), v)
        return y if self.conv is None else y + self._reference_convolution(v, ids)

    def _reference_convolution(self, v: Float[Tensor, "b h n e"], ids: Int[Tensor, "b p"]) -> Float[Tensor, "b h n e"]:
        """Nine sums over pairs of patches, one for each offset."""
        assert self.conv is not None
        assert self.conv.bias is not None
        patches = v[:, :, self.tokens.prefix :]
        y = self.conv.bias.view(1, self.num_heads, 1, -1).expand_as(patches)
        rows, columns = coordinates(self.tokens, ids)
        down, right = (place[:, None] - place[:, :, None] for place in (rows, columns))
        for i in range(3):
            for j in range(3):
                there = ((down == i - 1) & (right == j - 1)).to(v.dtype)
                tap = self.conv.weight[:, 0, i, j].view(1, self.num_heads, 1, -1)
                y = y + tap * torch.einsum("bpr,bhre->bhpe", there, patches)
        return nn.functional.pad(y, (0, 0, self.tokens.prefix, 0))

    def mix_flops(self, patches: int, rows: int) -> int:
        """Four products of tokens x agents x D, and the convolution over the whole grid; means are no products."""
        n = self.tokens.prefix + patches
        convolution = 0 if self.conv is None else 18 * self.tokens.patches * self.dim
        return 8 * n * self.agents**2 * self.dim + convolution

    def parts(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None
    ) -> dict[str, Float[Tensor, "b n w"]]:
        """The agents, and beside them the convolution."""
        q, k, v = self.split(x, patches)
        parts = {"agents": self.merge(self.by_agents(q, k, v, patches))}
        if self.conv is not None:
            parts["convolution"] = self._convolved(v, patches) @ self.proj.weight.T
        return parts

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """Everywhere through the agents; to neighbouring patches through the convolution."""
        everywhere = super().reach(patches)
        if part != "convolution":
            return everywhere
        ids = torch.arange(self.tokens.patches) if patches is None else patches.cpu()
        near = [(place[:, None] - place).abs() <= 1 for place in coordinates(self.tokens, ids)]
        everywhere.zero_()
        everywhere[self.tokens.prefix :, self.tokens.prefix :] = near[0] & near[1]
        return everywhere

    def refusal(self, patches: int) -> str | None:
        """As many agents as tokens are dearer than softmax, and still not softmax."""
        n = self.tokens.prefix + patches
        if patches < 1:
            return f"agent(agents={self.agents}) on {n} tokens, none of them patches: agents are means of patches"
        if self.agents**2 < n:
            return None
        allowed = f"agents must be 1..{math.isqrt(n - 1)}" if n > 1 else "agents need at least 2 tokens"
        return (
            f"agent(agents={self.agents}) on {n} tokens: {allowed}; {self.agents**2} agents would be dearer than "
            "softmax without being softmax"
        )

    @property
    def mix_order_free(self) -> bool:
        """Agents are regions of the grid; only one of everything, without convolution and bias, has no order."""
        return self.agents == 1 and self.conv is None and self.bias_of_agents is None

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead; the convolution starts as torch's own do, biases of places as in the authors' code."""
        super().reset_parameters(generator_of)
        if self.conv is not None and self.conv.bias is not None:
            for name, values in (("conv.weight", self.conv.weight), ("conv.bias", self.conv.bias)):
                fill_uniform(values, generator_of(name), 1 / 3)
        for name, bias in (("bias_of_agents", self.bias_of_agents), ("bias_of_tokens", self.bias_of_tokens)):
            if bias is not None:
                bias.reset_parameters(within(generator_of, name))

    @torch.no_grad()
    def resample(self, old: Tokens) -> None:
        """The numbers of rows and columns between the old ones; tables are enlarged to any grid."""
        for bias in (self.bias_of_agents, self.bias_of_tokens):
            if bias is not None:
                bias.resample(self.tokens)

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """Agents for half the tokens at most, nine at most: twice as many are as much work as softmax."""
        return {"agents": max(1, min(3, math.isqrt((tokens.prefix + patches) // 2)))}


class PlaceBias(nn.Module):
    """A learned number for each head, agent and token: of its place on the grid, or of the prefix token.

    Args:
        num_heads: heads.
        agents: agents of a head.
        tokens: prefix and grid.
    """

    def __init__(self, num_heads: int, agents: int, tokens: Tokens) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(num_heads, agents, TABLE_SIDE, TABLE_SIDE))
        self.rows = nn.Parameter(torch.empty(num_heads, agents, tokens.grid[0]))
        self.columns = nn.Parameter(torch.empty(num_heads, agents, tokens.grid[1]))
        self.prefix = nn.Parameter(torch.empty(num_heads, agents, tokens.prefix)) if tokens.prefix else None

    def forward(self, patches: Int[Tensor, "b p"] | None, tokens: Tokens) -> Float[Tensor, "#b h a n"]:
        """The numbers of the tokens that are there."""
        table = nn.functional.interpolate(self.table, tokens.grid, mode="bilinear")
        places = (table + self.rows[..., None] + self.columns[:, :, None]).flatten(2)
        there = places[None] if patches is None else places[:, :, patches].permute(2, 0, 1, 3)
        if self.prefix is None:
            return there
        return torch.cat([self.prefix.expand(len(there), -1, -1, -1), there], dim=-1)

    def reference(self, ids: Int[Tensor, "b p"], tokens: Tokens) -> Float[Tensor, "b h a n"]:
        """The table by what each of its cells adds to each place, image by image."""
        down, right = (_bilinear(side).to(self.table) for side in tokens.grid)
        rows, columns = coordinates(tokens, ids)
        of_images = []
        for y, x in zip(rows, columns, strict=True):
            there = torch.einsum("hars,pr,ps->hap", self.table, down[y], right[x])
            there = there + self.rows[..., y] + self.columns[..., x]
            of_images.append(there if self.prefix is None else torch.cat([self.prefix, there], dim=-1))
        return torch.stack(of_images)

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Normal numbers of 0.02."""
        for name, values in self.named_parameters():
            fill_normal(values, generator_of(name))

    def resample(self, tokens: Tokens) -> None:
        """Rows and columns linearly between the old ones."""
        for name, side in zip(("rows", "columns"), tokens.grid, strict=True):
            values = self.get_parameter(name)
            stretched = resize(values, (values.shape[1], side))
            setattr(self, name, nn.Parameter(stretched, requires_grad=values.requires_grad))


def agent_attention(
    q: Float[Tensor, "b h n e"],
    agents: Float[Tensor, "b h a e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    of_agents: Float[Tensor, "#b h a n"] | None = None,
    of_tokens: Float[Tensor, "#b #h #n a"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """softmax(QAᵀ/√e + B₂) softmax(AKᵀ/√e + B₁) V, from the right; B₁ is `of_agents`, B₂ `of_tokens`."""
    return _biased(q, agents, _biased(agents, k, v, of_agents), of_tokens)


def mean_queries(
    q: Float[Tensor, "b h n e"], patches: Int[Tensor, "b p"] | None, tokens: Tokens, side: int
) -> tuple[Float[Tensor, "b h a e"], Bool[Tensor, "b a"] | None]:
    """The mean query of the visible patches of each region, and which regions have none; None where all are visible.

    Region i of `side` spans the rows ⌊iG/side⌋ to ⌈(i+1)G/side⌉ of G, likewise the columns.
    """
    with without_autocast(q.device):
        visible = at_least_float32(q[:, :, tokens.prefix :].transpose(1, 2).flatten(2))
        means = _pooled(visible, patches, tokens, side)
        absent = None
        if patches is not None:
            # Both are divided by the size of the region, so that their quotient is by what is visible of it.
            share = _pooled(torch.ones_like(visible[..., :1]), patches, tokens, side)
            absent = share[..., 0] == 0
            means = means / share.masked_fill(share == 0, 1)
    return means.to(q.dtype).unflatten(2, (q.shape[1], -1)).transpose(1, 2), absent


def _pooled(
    x: Float[Tensor, "b p w"], patches: Int[Tensor, "b p"] | None, tokens: Tokens, side: int
) -> Float[Tensor, "b a w"]:
    """Means over regions, hidden patches being zero."""
    maps = _maps(onto_grid(x, patches, tokens), tokens)
    return nn.functional.adaptive_avg_pool2d(maps, side).flatten(2).mT


def _maps(x: Float[Tensor, "b l w"], tokens: Tokens) -> Float[Tensor, "b w y x"]:
    return x.unflatten(1, tokens.grid).permute(0, 3, 1, 2)


def _biased(
    q: Float[Tensor, "b h m e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    bias: Float[Tensor, "#b #h #m n"] | None,
) -> Float[Tensor, "b h m e"]:
    """softmax(QKᵀ/√e + B) V by the faster kernel."""
    if bias is None:
        return softmax_attention(q, k, v)
    if faster_kernel(q.dtype, q.device) == "sdpa":
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1) + bias).softmax(-1).to(v.dtype) @ v


def _regions(tokens: Tokens, side: int) -> Bool[Tensor, "a l"]:
    """Which patch belongs to which agent."""
    rows, columns = (
        torch.tensor([[i * g // side <= y < -(-(i + 1) * g // side) for y in range(g)] for i in range(side)])
        for g in tokens.grid
    )
    return (rows[:, None, :, None] & columns[None, :, None]).flatten(2).flatten(0, 1)


def _bilinear(side: int) -> Float[Tensor, "side cells"]:
    """How much of each cell of the table is in each of `side` places."""
    weights = torch.zeros(side, TABLE_SIDE, dtype=torch.float64)
    for place in range(side):
        at = min(max((place + 0.5) * TABLE_SIDE / side - 0.5, 0), TABLE_SIDE - 1)
        low = int(at)
        weights[place, low] += 1 - (at - low)
        weights[place, min(low + 1, TABLE_SIDE - 1)] += at - low
    return weights
