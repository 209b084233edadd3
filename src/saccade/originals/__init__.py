"""The five systems that saccade grew out of, rebuilt: the table of their names, and `find_original`."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saccade.originals.original import Original


@dataclass(frozen=True)
class Listed:
    """An original by name, known without torch.

    Attributes:
        id: three digits.
        name: what it can be called instead.
        title: what it compared, in a phrase.
        place: "module:Class" of the original.
    """

    id: str
    name: str
    title: str
    place: str


ORIGINALS: dict[str, Listed] = {
    one.id: one
    for one in (
        Listed(
            "000",
            "mae-blocks",
            "a masked autoencoder of ViT-Large's size, plain blocks against those of xFormers with five attentions",
            "saccade.originals.mae_blocks:MaeBlocks",
        ),
        Listed(
            "001",
            "mae-lambda",
            "a masked autoencoder with lambda layers against softmax, images of one channel",
            "saccade.originals.mae_lambda:MaeLambda",
        ),
        Listed(
            "002",
            "xformers-vit",
            "a narrow ViT with dense, sparse and memory-efficient attention, timed at one image",
            "saccade.originals.xformers_vit:XformersVit",
        ),
        Listed(
            "003",
            "vit-einops",
            "ViT-B/16 written from scratch, with the table of its layers",
            "saccade.originals.vit_einops:VitEinops",
        ),
        Listed(
            "004",
            "cifar-linear",
            "three small ViTs on CIFAR-10: softmax, linear attention, and linear behind convolutions",
            "saccade.originals.cifar_linear:CifarLinear",
        ),
    )
}


def find_original(name: str) -> Original:
    """The original of that id or name.

    Raises:
        ValueError: there is none.
    """
    for listed in ORIGINALS.values():
        if name in (listed.id, listed.name):
            module, _, cls = listed.place.partition(":")
            return getattr(importlib.import_module(module), cls)()
    known = [word for listed in ORIGINALS.values() for word in (listed.id, listed.name)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"there is no original {name!r}: {hint}known are "
        + ", ".join(f"{listed.id} ({listed.name})" for listed in ORIGINALS.values())
    )
