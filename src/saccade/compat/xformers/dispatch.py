"""MultiHeadDispatch: projections around one of xFormers' attentions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from saccade.compat.xformers.base import Attention
from saccade.compat.xformers.masks import AttentionMask


class InputProjection(nn.Module):
    """Projections of queries, keys and values, under xFormers' names.

    Args:
        dim_model: width of a token.
        dim_key: width of queries and keys.
        dim_value: width of values.
        bias: of each of the three.
        use_separate_proj_weight: False makes their weights one; the biases stay apart.
    """

    def __init__(
        self,
        dim_model: int,
        dim_key: int,
        dim_value: int,
        bias: tuple[bool, bool, bool],
        use_separate_proj_weight: bool = True,
    ) -> None:
        super().__init__()
        self.q_proj = nn.Linear(dim_model, dim_key, bias[0])
        self.k_proj = nn.Linear(dim_model, dim_key, bias[1])
        self.v_proj = nn.Linear(dim_model, dim_value, bias[2])
        if not use_separate_proj_weight:
            if dim_key != dim_value:
                raise ValueError(
                    f"use_separate_proj_weight=False with dim_key={dim_key} and dim_value={dim_value}: one weight for "
                    "all three needs one width"
                )
            self.k_proj.weight = self.v_proj.weight = self.q_proj.weight

    def forward(
        self, query: Float[Tensor, "b m w"], key: Float[Tensor, "b n w"], value: Float[Tensor, "b n w"]
    ) -> tuple[Float[Tensor, "b m a"], Float[Tensor, "b n a"], Float[Tensor, "b n c"]]:
        """Each by its own."""
        return self.q_proj(query), self.k_proj(key), self.v_proj(value)


class MultiHeadDispatch(nn.Module):
    """Projects tokens for an attention by head, and what comes back: (B, N, D) to it. Repaired: values of any width.

    In xFormers the output projection took the tokens' width only. Refused is `use_rotary_embeddings`, which turned
    tokens by their places along the sequence.

    Args:
        dim_model: width of a token.
        num_heads: heads.
        attention: one of this package.
        bias: of queries, keys, values and output; or one for all.
        residual_dropout: of the output, in training.
        use_separate_proj_weight: False makes the weights of queries, keys and values one.
        dim_key: width of queries and keys, where not the tokens'.
        dim_value: width of values, where not the tokens'.
        in_proj_container: makes queries, keys and values, in the place of projections.
        use_rotary_embeddings: refused.
        out_proj: in the place of the output projection.
    """

    def __init__(
        self,
        dim_model: int,
        num_heads: int,
        attention: Attention,
        bias: tuple[bool, bool, bool, bool] | bool = (True, True, True, True),
        residual_dropout: float = 0.0,
        use_separate_proj_weight: bool = True,
        dim_key: int | None = None,
        dim_value: int | None = None,
        in_proj_container: nn.Module | None = None,
        use_rotary_embeddings: bool = False,
        out_proj: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if use_rotary_embeddings:
            raise ValueError(
                "MultiHeadDispatch(use_rotary_embeddings=True) is not offered: saccade's own attentions take "
                "rope=True, for places on the grid"
            )
        biases = (bias,) * 4 if isinstance(bias, bool) else bias
        dim_key, dim_value = dim_key or dim_model, dim_value or dim_model
        if num_heads < 1 or dim_key % num_heads or dim_value % num_heads:
            raise ValueError(
                f"{num_heads} heads on queries of width {dim_key}, values of {dim_value}: must divide both"
            )
        self.num_heads = num_heads
        self.dim_model = dim_model
        self.attention = attention
        if attention.requires_input_projection and not attention.requires_skip_multi_head:
            self.in_proj_container = in_proj_container or InputProjection(
                dim_model, dim_key, dim_value, biases[:3], use_separate_proj_weight
            )
        self.resid_drop = nn.Dropout(residual_dropout)
        self.proj = out_proj or nn.Linear(dim_value, dim_model, biases[3])
        if isinstance(self.proj, nn.Linear) and self.proj.bias is not None:
            nn.init.zeros_(self.proj.bias)

    def forward(
        self,
        query: Float[Tensor, "b m w"],
        key: Float[Tensor, "c n w"] | None = None,
        value: Float[Tensor, "c n w"] | None = None,
        att_mask: Tensor | AttentionMask | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> Float[Tensor, "b m w"]:
        """Attends; key and value default to the query, and one image stands for all of a batch.

        Raises:
            ValueError: a mask that the attention does not take, or shapes that do not fit.
        """
        key, value = query if key is None else key, query if value is None else value
        largest = max(len(query), len(key), len(value))
        query, key, value = (x.expand(largest, -1, -1) for x in (query, key, value))
        masks = {"att_mask": att_mask, "key_padding_mask": key_padding_mask}
        if self.attention.requires_skip_multi_head:
            return self.attention(query, key, value, **masks)
        if self.attention.requires_input_projection:
            query, key, value = self.in_proj_container(query=query, key=key, value=value)
        y = self.attention(*(self._by_head(x) for x in (query, key, value)), **masks)
        return self.resid_drop(self.proj(y.transpose(1, 2).flatten(2)))

    def _by_head(self, x: Float[Tensor, "b n a"]) -> Float[Tensor, "b h n e"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def built(name: str, known: Mapping[str, Callable[..., Attention]], options: Mapping[str, Any]) -> Attention:
    """The attention of that name, with those of the options that it takes; None stands for a default.

    One configuration may serve several attentions, so what another of them takes is left out; but `causal` never is.

    Raises:
        ValueError: an unknown name, an option that none takes, one that this attention needs and is not there, or
            `causal` where it is not taken.
    """
    if name not in known:
        raise ValueError(f"there is no attention {name!r}: known are {', '.join(known)}")
    taken = {option for cls in known.values() for option in inspect.signature(cls).parameters}
    if strange := sorted(set(options) - taken):
        raise ValueError(f"{strange[0]!r} is an option of none of {', '.join(known)}")
    own = inspect.signature(known[name]).parameters
    if options.get("causal") and "causal" not in own:
        raise ValueError(f"{name!r} has no causal form: take 'scaled_dot_product' or 'local'")
    chosen = {option: value for option, value in options.items() if option in own and value is not None}
    needed = [option for option, one in own.items() if one.default is one.empty and option not in chosen]
    if needed:
        raise ValueError(f"{name!r} needs {', '.join(needed)}")
    return known[name](**chosen)
