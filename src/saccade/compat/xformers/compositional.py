"""xFormers' compositional attention, on whole tokens with projections of its own."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.attention.compositional import chosen, retrieve
from saccade.compat.xformers.base import Attention
from saccade.compat.xformers.dispatch import InputProjection
from saccade.compat.xformers.masks import AttentionMask, as_added, causal, for_each_group


class CompositionalAttention(Attention):
    """Σ_r p_sr A_s V_r, A_s = softmax(QKᵀ/√e + M): searches retrieve every value. Repaired: q_compose, masks, widths.

    A token chooses among what a search retrieves by p, a softmax over r. In xFormers `q_compose` mixed the tokens of
    different images, a mask for each image failed, and so did values of another width. As there, queries, keys and
    values share one projection unless `use_separate_proj_weight` is set, and the linear rule's second query adds the
    same to all scores: it changes nothing, and is not computed.

    Args:
        dim_model: width of a token.
        num_heads: searches.
        dim_attn: width of all values together; the tokens' by default.
        num_rules: values; as many as searches by default.
        dim_selection: width of the second query, with which a token chooses; by default that of a search.
        dim_key: the tokens' width; refused otherwise.
        dim_value: the same as dim_attn.
        dropout: of the weights, in training.
        qk_rule: scores are products of the second query and a projection of what is retrieved; otherwise they are
            linear in what is retrieved.
        nonlinear: without `qk_rule`, a hidden layer makes the scores of both.
        q_compose: the second query is made of a search's query instead of the token.
        in_proj_container: makes queries, keys and values, in the place of projections.
        use_separate_proj_weight: a projection each for queries, keys and values.
        bias: on every projection.
        causal: token i sees j ≤ i alone.
    """

    supports_attention_mask: ClassVar[bool] = True
    requires_skip_multi_head: ClassVar[bool] = True

    def __init__(
        self,
        dim_model: int,
        num_heads: int,
        dim_attn: int | None = None,
        num_rules: int | None = None,
        dim_selection: int | None = None,
        dim_key: int | None = None,
        dim_value: int | None = None,
        dropout: float = 0.0,
        qk_rule: bool = False,
        nonlinear: bool = False,
        q_compose: bool = False,
        in_proj_container: nn.Module | None = None,
        use_separate_proj_weight: bool = False,
        bias: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__(dropout)
        width = dim_attn or dim_value or dim_model
        self.num_heads = num_heads
        self.num_rules = num_rules or num_heads
        if (dim_key or dim_model) != dim_model or (dim_value or width) != width:
            raise ValueError(
                f"CompositionalAttention(dim_model={dim_model}, dim_attn={dim_attn}, dim_key={dim_key}, "
                f"dim_value={dim_value}): dim_key must be dim_model, and dim_value dim_attn; leave them out"
            )
        if dim_model % num_heads or width % self.num_rules:
            raise ValueError(
                f"CompositionalAttention: {num_heads} heads on width {dim_model}, {self.num_rules} rules on values of "
                f"{width}: must divide them"
            )
        if qk_rule and nonlinear:
            raise ValueError("CompositionalAttention(qk_rule=True, nonlinear=True): two rules; choose one")
        self.dim_model, self.dim_head, self.value_dim = dim_model, dim_model // num_heads, width // self.num_rules
        self.qk_rule, self.nonlinear, self.q_compose, self.causal = qk_rule, nonlinear, q_compose, causal
        selection = self.dim_head if dim_selection is None else dim_selection
        self.dim_selection = selection
        self.in_proj_container = in_proj_container or _projections(dim_model, width, bias, use_separate_proj_weight)
        self.out_proj = nn.Linear(num_heads * self.value_dim, dim_model, bias)
        if q_compose:
            self.value_q = nn.Linear(self.dim_head, selection, bias)
        else:
            self.value_q = nn.Linear(dim_model, selection * num_heads, bias)
        if qk_rule:
            self.value_k = nn.Linear(self.value_dim, selection, bias)
        elif nonlinear:
            hidden = nn.Linear(selection + self.value_dim, selection, bias)
            self.score_network: nn.Module = nn.Sequential(hidden, nn.ReLU(), nn.Linear(selection, 1, bias))
        else:
            self.score_network = nn.Linear(selection + self.value_dim, 1, bias)
        self._start()

    def _start(self) -> None:
        """Xavier's uniform, as in xFormers."""
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Linear) and not name.startswith("in_proj_container"):
                halved = self.qk_rule and name in ("value_q", "value_k")
                nn.init.xavier_uniform_(layer.weight, gain=0.5**0.5 if halved else 1.0)
        if self.out_proj.bias is not None:
            nn.init.zeros_(self.out_proj.bias)

    def attend(
        self,
        q: Float[Tensor, "b m w"],
        k: Float[Tensor, "b n w"],
        v: Float[Tensor, "b n w"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "b m w"]:
        """Searches and retrieves, chooses, projects."""
        tokens, mask = q, for_each_group(att_mask, q, k)
        if self.causal:
            earlier = as_added(causal(q.shape[1], k.shape[1], q.device)).to(q)[None]
            mask = earlier if mask is None else mask + earlier
        q, k, v = self.in_proj_container(query=q, key=k, value=v)
        q, k = self._searches(q), self._searches(k)
        retrieved = self._retrieved(q, k, v, mask)
        second = self.value_q(q * self.dim_head**-0.5) if self.q_compose else self._searches(self.value_q(tokens))
        return self.out_proj(self._chosen(retrieved, second).transpose(1, 2).flatten(2))

    def _searches(self, y: Float[Tensor, "b n a"]) -> Float[Tensor, "b s n e"]:
        return y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _retrieved(
        self,
        q: Float[Tensor, "b s m e"],
        k: Float[Tensor, "b s n e"],
        v: Float[Tensor, "b n c"],
        mask: Float[Tensor, "#b m n"] | None,
    ) -> Float[Tensor, "b s m r f"]:
        """Every search with every value; a token that may see nothing retrieves 0."""
        if mask is None and not self.rate:
            return retrieve(q, k, v, self.num_rules)
        scores = q * self.dim_head**-0.5 @ k.mT
        if mask is not None:
            blind = mask.isneginf().all(-1, keepdim=True)
            scores = (scores + mask.masked_fill(blind, 0)[:, None]).masked_fill(blind[:, None], 0)
        weights = self.attn_drop(scores.softmax(-1))
        if mask is not None:
            weights = weights.masked_fill(blind[:, None], 0)
        retrieved = (weights.flatten(1, 2) @ v).unflatten(1, weights.shape[1:3])
        return retrieved.unflatten(-1, (self.num_rules, self.value_dim))

    def _chosen(
        self, retrieved: Float[Tensor, "b s m r f"], second: Float[Tensor, "b s m c"]
    ) -> Float[Tensor, "b s m f"]:
        """By the scores of the rule."""
        if self.qk_rule:
            # What its bias adds is the same for all that is retrieved.
            return chosen(retrieved, second @ (self.value_k.weight * self.dim_selection**-0.5))
        if not self.nonlinear:
            assert isinstance(self.score_network, nn.Linear)
            return chosen(retrieved, self.score_network.weight[:, None, None, : self.value_dim])
        repeated = second[..., None, :].expand(*retrieved.shape[:-1], -1)
        scores = self.score_network(torch.cat([retrieved, repeated], dim=-1))
        return (scores.softmax(-2) * retrieved).sum(-2)


def _projections(dim_model: int, width: int, bias: bool, separate: bool) -> InputProjection:
    if not separate and width != dim_model:
        raise ValueError(
            f"CompositionalAttention(dim_model={dim_model}, dim_attn={width}): one projection for queries, keys and "
            "values has one width; set use_separate_proj_weight=True"
        )
    made = InputProjection(dim_model, dim_model, width, (bias, bias, bias))
    if not separate:
        made.k_proj = made.v_proj = made.q_proj
    return made
