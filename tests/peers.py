"""Code that is not ours, to compare with: `from tests.peers import timm` works beside any build of torch."""

import importlib
import warnings
from importlib.util import find_spec
from types import ModuleType

from torch import library

# They import torchvision where it is installed; the last one warns of the distutils that it imports.
_PEERS = ("timm", "transformers", "performer_pytorch")

if find_spec("torchvision") is not None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # torchvision from PyPI is compiled for another torch than a CPU build: its operators do not load, and the
        # registration of their shapes fails. Nobody here needs them; declared, they let the import pass.
        library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def __getattr__(name: str) -> ModuleType:
    if name not in _PEERS:
        raise AttributeError(f"tests.peers has no {name!r}; it offers {', '.join(_PEERS)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)
