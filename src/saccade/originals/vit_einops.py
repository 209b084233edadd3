"""Original 003: ViT-B/16 written from scratch with einops, and the table of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from saccade.models.sizes import create_model
from saccade.originals.claimed import Claimed
from saccade.originals.from_scratch import ViT
from saccade.originals.original import Asked, Beside, Fault, Original, Part, counts
from saccade.record import Record
from saccade.reports.torchsummary_form import torchsummary_lines
from saccade.training.progress import Progress

MODEL = "vit_base_patch16_224"
OPTIONS: Mapping[str, Any] = {"num_heads": 8, "global_pool": "all"}

# As torchsummary counts: what belongs to no module that it lists is overlooked.
COUNTED_PARAMETERS = 86_415_592

# The end of its table, MB of 2^20 bytes.
FOOTER = {
    "Input size (MB)": "0.57",
    "Forward/backward pass size (MB)": "364.33",
    "Params size (MB)": "329.65",
    "Estimated Total Size (MB)": "694.56",
}


class VitEinops(Original):
    """One block at a time, and a layer table at the end."""

    id = "003"
    was = (
        "ViT-B/16 on 224 x 224 pixels with 8 heads, class token and learned positions, written block by block with "
        "einops; its head reads the mean of all tokens, then a norm, then a linear layer. It shows torchsummary's "
        "table of the layers, and trains nothing."
    )
    hardware = "no machine: it counts"
    usual: ClassVar[Mapping[str, Any]] = {}
    faults = (
        Fault(
            "The scores are scaled after the softmax, and by the whole width.",
            attention="saccade.originals.scaled_after:ScaledAfter",
            clauses=("equals_reference", "softmax_at_its_limit"),
        ),
        Fault(
            "Its mask calls a method that tensors do not have.",
            attention="saccade.originals.scaled_after:ScaledAfter(masked=True)",
            clauses=("shape_and_dtype",),
        ),
    )
    instead = "saccade summary vit_base_patch16_224 --set num_heads=8 --set global_pool=all --style torchsummary"

    def claims(self) -> list[Record]:
        """That it is a ViT with softmax attention, of so many parameters."""
        return [Claimed(model=MODEL, options=OPTIONS).operations()]

    def counted(self) -> Part:
        """The table of its own modules, and the parameters of saccade's model of the same sizes."""
        with torch.device("meta"):
            theirs, ours = ViT(), create_model(MODEL, "softmax", **OPTIONS)
        lines = torchsummary_lines(theirs, (3, 224, 224))
        every = sum(one.numel() for one in ours.parameters())
        bare = sum(one.numel() for name, one in ours.named_parameters() if name in ("cls_token", "pos_embed"))
        rows = [
            counts("parameters, by module", COUNTED_PARAMETERS, every - bare),
            Beside(
                "parameters, with class token and positions",
                "overlooked",
                f"{every:,}",
                "no: torchsummary does not see them",
            ),
        ]
        return Part("The layers, as torchsummary prints them", lines, [*rows, *_footer(lines)])

    def measured(self, asked: Asked, progress: Progress) -> Iterator[Part]:
        """Nothing: it measured nothing."""
        return iter(())


def _footer(lines: Sequence[str]) -> list[Beside]:
    """The sizes of its own modules, which need no machine."""
    found = dict(line.split(": ") for line in lines if line.partition(": ")[0] in FOOTER)
    return [
        Beside(what, theirs, found[what], f"yes: {'equal' if found[what] == theirs else 'not equal'}")
        for what, theirs in FOOTER.items()
    ]
