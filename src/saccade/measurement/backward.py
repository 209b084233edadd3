"""Backward: the FLOPs of a model's backward pass, counted module by module as it runs; nothing is allocated."""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils.flop_counter import FlopCounterMode

from saccade.attention.flops import counting
from saccade.measurement.memory.scopes import Scopes
from saccade.measurement.work import Model, work_of


def backward_flops(model: Model) -> Counter[str] | None:
    """FLOPs of one image's backward pass by the module that computes them, and of all together as `WHOLE`.

    What runs is counted, not what a rule says: a product whose one side needs no gradient (pixels, random features,
    detached landmarks) costs as much as forward, any other twice as much, and what is computed again is counted again,
    be it by checkpointing, reversible blocks or a mechanism that keeps little.

    Args:
        model: on the meta device, with or without checkpointing.

    Returns:
        None where the model does what only tensors with values can.
    """
    images = torch.empty(1, model.in_chans, *model.img_size, device="meta")
    try:
        with Scopes(model) as scopes, counting(scopes) as counter:
            outputs = work_of(model.train()).forward(images)
            forward = _by_module(counter)
            outputs.sum().backward()
    # A class of somebody's may read values; then nothing is known beforehand.
    except Exception:
        return None
    counted = _by_module(counter)
    counted.subtract(forward)
    return counted


def _by_module(counter: FlopCounterMode) -> Counter[str]:
    return Counter({name: sum(of_name.values()) for name, of_name in counter.get_flop_counts().items()})
