"""GPUs by name: what torch could have on one that is not there."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

MIB, GIB = 2**20, 2**30

# What CUDA and its libraries hold in a process of torch beside its tensors: 0.13 to 0.58 GiB in the messages that are
# cited below (memory in use, less what torch has allocated and reserved).
CONTEXT_BYTES = 600 * MIB

# torch's defaults for cuBLAS (aten/src/ATen/cuda/CublasHandlePool.cpp): 32 MiB on Hopper, else 8 MiB and 128 KiB. The
# forward pass has one and the backward pass, which is another thread's, has one.
_HOPPER_BYTES, _OTHER_BYTES = 2 * 32 * MIB, 2 * (8 * MIB + 128 * 2**10)


@dataclass(frozen=True)
class Gpu:
    """A GPU that need not be there.

    Attributes:
        name: as `--for` takes it.
        title: as its maker calls it.
        total_bytes: what CUDA offers, which is less than what is sold.
        source: where that number was seen.
        workspace_bytes: of cuBLAS, by torch's defaults.
        error_share: by which predictions were off on such a GPU, at the most; None where nobody has measured it.
    """

    name: str
    title: str
    total_bytes: int
    source: str
    workspace_bytes: int = _OTHER_BYTES
    error_share: float | None = None

    @property
    def reserve_bytes(self) -> int:
        """What no tensor can have."""
        return CONTEXT_BYTES + self.workspace_bytes

    @property
    def verified(self) -> str:
        """How far a prediction for it is known to be right."""
        if self.error_share is None:
            return "unverified"
        return f"on {self.title}, within {100 * self.error_share:.2g} %"


def _gib(count: float) -> int:
    return int(count * GIB)


_ISSUE = "https://github.com/"

GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a10", "NVIDIA A10", _gib(21.99), f"{_ISSUE}zai-org/CogVLM/issues/236"),
        Gpu("a10g", "NVIDIA A10G", _gib(21.99), f"the A10 of {_ISSUE}zai-org/CogVLM/issues/236"),
        Gpu("a100-40gb", "NVIDIA A100 40 GB", 42_298_834_944, f"{_ISSUE}bottlerocket-os/bottlerocket/pull/3873"),
        Gpu("a100-80gb", "NVIDIA A100 80 GB", _gib(79.14), f"{_ISSUE}lianqi1008/Control-GIC/issues/6"),
        Gpu("a4000", "NVIDIA RTX A4000", _gib(15.61), f"{_ISSUE}DengKaiCQ/VGGT-Long/issues/6"),
        Gpu("a6000", "NVIDIA RTX A6000", 48_676 * MIB, "torchao/prototype/hqq/README.md of pytorch/ao"),
        Gpu("h100-80gb", "NVIDIA H100 80 GB", _gib(79.10), f"{_ISSUE}huggingface/trl/issues/2688", _HOPPER_BYTES),
        Gpu("h200", "NVIDIA H200", _gib(139.72), "torch's message on one that was full", _HOPPER_BYTES),
        Gpu("l4", "NVIDIA L4", _gib(22.03), "torch's message on one that was full"),
        Gpu("l40", "NVIDIA L40", _gib(44.40), f"{_ISSUE}NVlabs/Eagle/issues/68"),
        Gpu("rtx-2080ti", "NVIDIA RTX 2080 Ti", _gib(10.76), f"{_ISSUE}ispc-lab/TMA/issues/5"),
        Gpu("rtx-3090", "NVIDIA RTX 3090", _gib(23.56), f"{_ISSUE}noonghunna/club-3090/issues/58"),
        Gpu("rtx-4090", "NVIDIA RTX 4090", _gib(23.52), f"{_ISSUE}Soul-AILab/SoulX-FlashTalk/issues/5"),
        Gpu("rtx-5090", "NVIDIA RTX 5090", _gib(31.33), f"{_ISSUE}deepbeepmeep/Wan2GP/issues/2228"),
        Gpu("t4", "NVIDIA T4", _gib(14.56), f"{_ISSUE}Zheng-Chong/CatVTON/issues/133"),
        Gpu("v100-16gb", "NVIDIA V100 16 GB", _gib(15.75), f"{_ISSUE}pytorch/pytorch/issues/16036"),
        Gpu("v100-32gb", "NVIDIA V100 32 GB", _gib(31.74), f"{_ISSUE}haotian-liu/LLaVA/issues/812"),
    )
}
"""The catalogue: the least that was seen of each, since drivers differ."""


def gpu_named(name: str) -> Gpu:
    """The GPU of that name.

    Raises:
        ValueError: it is not in the catalogue; the message names the nearest ones and all.
    """
    asked = name.strip().lower().replace(" ", "-").replace("_", "-")
    if asked in GPUS:
        return GPUS[asked]
    near = [one for one in GPUS if one.startswith(asked)] or difflib.get_close_matches(asked, GPUS, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(
        f"--for {name}: {hint}known are {', '.join(GPUS)}; for any other write how much it has, as in --memory 24GiB"
    )
