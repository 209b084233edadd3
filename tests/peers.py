"""Code that is not ours, to compare with: importing this module makes `import timm` work beside any build of torch."""

import warnings
from importlib.util import find_spec

import torch

if find_spec("torchvision") is not None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # torchvision from PyPI is compiled for another torch than a CPU build: its operators do not load, and the
        # registration of their shapes fails. timm needs neither; declared, they let the import pass.
        OPERATORS = torch.library.Library("torchvision", "DEF")
        OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import timm

__all__ = ["timm"]
