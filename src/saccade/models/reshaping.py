"""Reshaping: tensors of a pre-trained model brought to the shapes of another, and what was done to which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saccade.attention import attention_class, parse_layers
from saccade.attention.base import MultiHead
from saccade.attention.separate import SeparateProjections
from saccade.attention.tokens import Tokens
from saccade.models.block import Block
from saccade.models.embed import sine_positions
from saccade.models.mae import MaskedAutoencoder
from saccade.models.pretrained import Pretrained
from saccade.models.resampling import convert_channels, resample_patches, resample_positions
from saccade.models.vit import VisionTransformer


@dataclass(frozen=True)
class Reshaped:
    """A tensor that was changed on its way.

    Attributes:
        before: its shape in the pre-trained model.
        after: its shape here.
        how: what was done to it.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    how: str


@dataclass
class Reshaping:
    """Brings the tensors of a state dict to the shapes of a model, in place.

    Attributes:
        model: whose shapes are wanted.
        found: where the tensors come from.
        reshaped: what was done, by name.
    """

    model: VisionTransformer | MaskedAutoencoder
    found: Pretrained
    reshaped: dict[str, Reshaped] = field(default_factory=dict)

    def pixels(self, state: dict[str, Tensor], convert: bool) -> None:
        """The first convolution, for other channels and another patch size."""
        for name in ("patch_embed.proj.weight", "patch_embed.conv1.weight"):
            if name not in state or name not in self.model.state_dict():
                continue
            weight, wanted = state[name], self.model.state_dict()[name].shape
            there, channels, patch = weight.shape[1], self.model.in_chans, (wanted[2], wanted[3])
            if there != channels and not convert:
                raise ValueError(
                    f"{self.found.source} was trained on images of {_channels(there)}, and these have {channels}: "
                    f"--convert-channels (model.convert_channels = true) converts its weights, or "
                    f"--set data.in_chans={there} the images"
                )
            if there != channels:
                how = f"weights converted to {_channels(channels)}"
                how += f" (of the first {channels} of {there}, the others dropped)" if 1 < channels < there else ""
                self._put(state, name, convert_channels(weight, channels), how)
            if weight.shape[2:] != patch:
                how = f"weights resized to patches of {patch[0]} x {patch[1]} pixels"
                how = f"{self.reshaped[name].how}, {how}" if name in self.reshaped else how
                self._put(state, name, resample_patches(state[name], patch), how)

    def positions(self, state: dict[str, Tensor]) -> None:
        """Learned positions between the old ones; sines for the new grid."""
        new, fixed = self.model.tokens, self._has_sines()
        old = self.found.grid(new.grid)
        if ("pos_embed" in state) != (self.model.pos_embed is not None):
            there = "positions" if "pos_embed" in state else "no positions"
            raise ValueError(f"{self.found.source} was trained with {there}: choose model.options.pos_embed to match")
        if self.model.pos_embed is None:
            return
        positions, rows = state["pos_embed"], self.model.pos_embed.shape[1]
        sines = (
            sine_positions(old, positions.shape[2], positions.shape[1])[None] if positions.shape[2] % 4 == 0 else None
        )
        if fixed and (sines is None or not torch.allclose(positions.float(), sines, atol=1e-3)):
            raise ValueError(
                f'{self.found.source} has learned positions, and pos_embed="sine" is fixed: '
                "set model.options.pos_embed=learn"
            )
        if old != new.grid:
            how = "sines of the new grid" if fixed else "positions interpolated (bicubic)"
            resampled = self.model.pos_embed if fixed else resample_positions(positions, old, new.grid)
            self._put(state, "pos_embed", resampled, f"{how}: {_by(old)} patches to {_by(new.grid)}")
        if "decoder_pos_embed" in state and isinstance(self.model, MaskedAutoencoder) and old != new.grid:
            how = f"sines of the new grid: {_by(old)} patches to {_by(new.grid)}"
            self._put(state, "decoder_pos_embed", self.model.decoder_pos_embed, how)
        self._prefix_rows(state, rows)

    def _prefix_rows(self, state: dict[str, Tensor], rows: int) -> None:
        """Positions of class and register tokens where one model has them and the other has not: zeros say nothing."""
        positions = state["pos_embed"]
        if (missing := rows - positions.shape[1]) > 0:
            self._put(
                state, "pos_embed", torch.nn.functional.pad(positions, (0, 0, missing, 0)), "no position for the prefix"
            )
        elif missing < 0:
            if positions[:, :-missing].any():
                raise ValueError(
                    f"{self.found.source} has learned positions of its class token: set no_embed_class=false"
                )
            self._put(state, "pos_embed", positions[:, -missing:], "positions of the prefix, all zero, left out")

    def layers(self, state: dict[str, Tensor]) -> None:
        """What the attentions keep by place, for another grid."""
        new = self.model.tokens
        if (old := self.found.grid(new.grid)) == new.grid:
            return
        before = Tokens(old, new.prefix)
        self._regrid("blocks", self.model.attention, self.model.blocks, before, state)
        if isinstance(self.model, MaskedAutoencoder) and any(name.startswith("decoder_blocks.") for name in state):
            self._regrid("decoder_blocks", self.model.decoder_attention, self.model.decoder_blocks, before, state)

    def _regrid(
        self, blocks: str, attention: str, built: Iterable[Block], old: Tokens, state: dict[str, Tensor]
    ) -> None:
        layers = list(built)
        for layer, (written, block) in enumerate(zip(parse_layers(attention, len(layers)), layers, strict=True)):
            name = f"{blocks}.{layer}.attn."
            own = {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}
            cls, new = attention_class(written.name), block.attn
            # As it was pre-trained, where it may have seen fewer patches than it would be allowed on the whole grid.
            there = cls(new.dim, new.num_heads, old, layer=layer, **dict(written.options))
            if isinstance(there, MultiHead) and isinstance(block.attn.qkv, SeparateProjections):
                there.separate()
            wanted = {key: value.shape for key, value in there.state_dict().items()}
            if wanted != {key: value.shape for key, value in own.items()}:
                raise ValueError(
                    f"{self.found.source}: its {name[:-1]} is no {written} on {_by(old.grid)} patches behind "
                    f"{old.prefix} other tokens"
                )
            there.load_state_dict(own)
            here = there.regrid(new.tokens)
            placed = dict(new.named_buffers())
            for key, value in here.named_buffers():
                if key not in wanted and not torch.equal(value, placed[key].to(value.device)):
                    raise ValueError(f"{self.found.source}: {written} names patches of {_by(old.grid)}, and no others")
            for key, value in here.state_dict().items():
                if value.shape != own[key].shape or not torch.equal(value, own[key].to(value.dtype)):
                    how = f"{written.name} regridded: {_by(old.grid)} patches to {_by(new.tokens.grid)}"
                    self._put(state, name + key, value, how)

    def _put(self, state: dict[str, Tensor], name: str, value: Tensor, how: str) -> None:
        before = tuple(self.found.state[name].shape)
        self.reshaped[name] = Reshaped(before, tuple(value.shape), how)
        state[name] = value

    def _has_sines(self) -> bool:
        return isinstance(self.model, MaskedAutoencoder) or self.model.config["pos_embed"] == "sine"


def _by(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]}"


def _channels(count: int) -> str:
    return f"{count} channel" + ("s" if count > 1 else "")
