"""Attention within buckets: the patches that see each other are brought together, so no N x N scores are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from saccade.attention.parts import faster_kernel, softmax_attention, visible_ids
from saccade.attention.tokens import Tokens

Sees = Callable[[Tensor, Tensor], Tensor]
"""Whether the patch of the first id sees that of the second, for ids of any two shapes that broadcast."""

Bias = Callable[[Tensor, Tensor], Tensor]
"""What is added to the scores of ids (*b, c, 1) and (*b, 1, s): (*b, h, c, s), one value a head."""


@dataclass(frozen=True)
class Cover:
    """Buckets of the whole grid: every patch is a query once, beside keys among which is all that it sees.

    Attributes:
        queries: ids of the patches of each bucket, -1 where a place is empty.
        keys: ids of the patches that they may see, likewise.
        complete: no place is empty, and every query sees every key of its bucket.
    """

    queries: Int[Tensor, "w c"]
    keys: Int[Tensor, "w s"]
    complete: bool


def crossed(rows: Int[Tensor, "u y"], columns: Int[Tensor, "v x"], tokens: Tokens) -> Int[Tensor, "w c"]:
    """Ids of the buckets that are products of places on the two axes; -1 where either place is -1."""
    y, x = rows[:, None, :, None], columns[None, :, None, :]
    ids = torch.where((y >= 0) & (x >= 0), y * tokens.grid[1] + x, -1)
    return ids.flatten(2).flatten(0, 1)


def on_axis(places: Int[Tensor, "u y"], length: int) -> Int[Tensor, "u y"]:
    """The places on an axis, -1 for those off it."""
    return torch.where((places >= 0) & (places < length), places, -1)


def takes_buckets(cover: Cover, prefix: int, patches: int) -> bool:
    """Whether the buckets hold fewer scores than all pairs of so many visible patches are."""
    return cover.queries.numel() * (prefix + cover.keys.shape[1]) < patches * (prefix + patches)


def attend_flops(cover: Cover, prefix: int, patches: int, width: int) -> int:
    """Of `attend`: two products for each score, those of the prefix's queries included."""
    in_buckets = cover.queries.numel() * (prefix + cover.keys.shape[1])
    scores = in_buckets if takes_buckets(cover, prefix, patches) else patches * (prefix + patches)
    return 4 * width * (scores + prefix * (prefix + patches))


def attend(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    tokens: Tokens,
    patches: Int[Tensor, "b p"] | None,
    cover: Cover,
    sees: Sees,
    bias: Bias | None = None,
) -> Float[Tensor, "b h n e"]:
    """softmax(QKᵀ/√e + bias) V over the patches that see each other; prefix tokens see and are seen by everything.

    Prefix keys stand in every bucket, and the queries of the prefix look once at everything. On a visible subset the
    places of hidden patches are empty; where all pairs of the visible ones are fewer than the scores of the buckets,
    those pairs are computed and no buckets made.
    """
    prefix, visible = tokens.prefix, q.shape[2] - tokens.prefix
    if takes_buckets(cover, prefix, visible):
        seen = _attend_in_buckets(q, k, v, tokens, patches, cover, sees, bias)
    else:
        seen = attend_to_all(q, k, v, tokens, patches, sees, bias)
    return torch.cat([softmax_attention(q[:, :, :prefix], k, v), seen], dim=2) if prefix else seen


def attend_to_all(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    tokens: Tokens,
    patches: Int[Tensor, "b p"] | None,
    sees: Sees,
    bias: Bias | None = None,
) -> Float[Tensor, "b h p e"]:
    """The rows of the patches from all pairs of them, those that do not see each other thrown away."""
    ids = visible_ids(tokens, patches, q.device)
    i, j, front = ids[:, :, None], ids[:, None, :], (tokens.prefix, 0)
    allowed = torch.nn.functional.pad(sees(i, j), front, value=True)[:, None]
    added = None if bias is None else torch.nn.functional.pad(bias(i, j), front)
    return masked_attention(q[:, :, tokens.prefix :], k, v, allowed, added)


def _attend_in_buckets(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    tokens: Tokens,
    patches: Int[Tensor, "b p"] | None,
    cover: Cover,
    sees: Sees,
    bias: Bias | None,
) -> Float[Tensor, "b h p e"]:
    """The rows of the patches from the scores of the buckets."""
    prefix, front = tokens.prefix, (tokens.prefix, 0)
    queries, keys, places = cover.queries[None], cover.keys[None], places_of(cover.queries, tokens)[None]
    i, j = queries.clamp_min(0)[..., None], keys.clamp_min(0)[:, :, None]
    if patches is not None:
        rows = rows_of(patches, tokens)
        queries, keys, places = rows[:, cover.queries], rows[:, cover.keys], places[0, patches]
    allowed = added = None
    if patches is not None or not cover.complete:
        # What an empty place asks for is thrown away, but it must be finite: it sees everything.
        there = (sees(i, j) & (keys >= 0)[:, :, None]) | (queries < 0)[..., None]
        allowed = _by_bucket(torch.nn.functional.pad(there, front, value=True)[:, :, None], len(q))
    if bias is not None:
        added = _by_bucket(torch.nn.functional.pad(bias(i, j), front), len(q))
    ahead = torch.arange(prefix, device=q.device).expand(*keys.shape[:2], -1)
    looked_at = torch.cat([ahead, keys.clamp_min(0) + prefix], dim=2)
    seen = masked_attention(
        gathered(q, queries.clamp_min(0) + prefix), gathered(k, looked_at), gathered(v, looked_at), allowed, added
    )
    whole = seen.transpose(1, 2).unflatten(0, (len(q), -1)).flatten(1, 2).transpose(1, 2)
    return gathered(whole, places[:, None])


def gathered(x: Float[Tensor, "b h n e"], index: Int[Tensor, "#b w m"]) -> Float[Tensor, "bw h m e"]:
    """The rows of x that each bucket names, buckets in place of images."""
    batch, heads, count, _ = x.shape
    rows = x.transpose(1, 2).flatten(2).flatten(0, 1)
    starts = count * torch.arange(batch, device=x.device)
    # An embedding's backward adds up rows, that of gather single numbers.
    taken = torch.nn.functional.embedding((index + starts[:, None, None]).flatten(0, 1), rows)
    return taken.unflatten(2, (heads, -1)).transpose(1, 2)


def masked_attention(
    q: Float[Tensor, "b h m e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    allowed: Bool[Tensor, "#b 1 m n"] | None,
    added: Float[Tensor, "#b h m n"] | None = None,
) -> Float[Tensor, "b h m e"]:
    """softmax(Q Kᵀ / √e + added) V over the allowed pairs by the faster kernel; no row may be without one."""
    mask = allowed
    if added is not None:
        mask = added.to(q.dtype)
        mask = mask if allowed is None else mask.masked_fill(~allowed, float("-inf"))
    if mask is None:
        return softmax_attention(q, k, v)
    if faster_kernel(q.dtype, q.device) == "sdpa":
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1).to(v.dtype) @ v


def rows_of(patches: Int[Tensor, "b p"], tokens: Tokens) -> Int[Tensor, "b l"]:
    """Which visible patch each id is, -1 where it is hidden; and once more -1 at the end, for the id -1."""
    rows = torch.full((len(patches), tokens.patches + 1), -1, device=patches.device)
    return rows.scatter(1, patches, torch.arange(patches.shape[1], device=patches.device).expand_as(patches))


def places_of(queries: Int[Tensor, "w c"], tokens: Tokens) -> Int[Tensor, " l"]:
    """Where among the places of all buckets, one after the other, each patch is a query."""
    places = queries.new_empty(tokens.patches + 1)
    taken = queries.flatten() % (tokens.patches + 1)
    return places.scatter(0, taken, torch.arange(queries.numel(), device=queries.device))[:-1]


def _by_bucket(scores: Shaped[Tensor, "#b w h c s"], batch: int) -> Shaped[Tensor, "bw h c s"]:
    return scores.expand(batch, -1, -1, -1, -1).flatten(0, 1)
