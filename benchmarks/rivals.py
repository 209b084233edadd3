"""The same Vision Transformer by three hands: saccade's, timm's and vit-pytorch's, on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from peers import timm
from saccade.attention.initial import seeded
from saccade.measurement.step import Forward, Step, random_images
from saccade.measurement.subject import Subject
from saccade.measurement.timed import Timed, kernels
from saccade.models.vit import VisionTransformer

CHECKED_IMAGES = 2


def timed_rival(code: str, subject: dict[str, Any]) -> Timed:
    """One rival in a process of its own; its facts say which code it is and what function it computes."""
    terms = Subject(**subject)
    ours = terms.built()
    randomise(ours)
    model, facts = RIVALS[code](ours)
    facts = {"kernel_asked": None, **facts, "function": fingerprint(model, random_images(ours, CHECKED_IMAGES))}
    if model is ours:
        facts |= {"code": f"saccade {version('saccade')}", **kernels(ours, terms)}
    acts: dict[str, Callable[[], None]] = {
        "step": Step(model, random_images(ours, terms.batch_size), terms, partial(class_loss, model)),
        "inference": Forward(model, random_images(ours, terms.inference_batch), terms, model),
    }
    return Timed(acts, terms.terms, facts)


def class_loss(model: nn.Module, images: Tensor) -> Tensor:
    """Cross entropy with made-up labels."""
    logits = model(images)
    return nn.functional.cross_entropy(logits.float(), torch.arange(len(images)) % logits.shape[1])


def randomise(model: nn.Module) -> None:
    """Moves every weight away from where it starts, so that no two could be mistaken for each other."""
    generator_of = seeded(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator_of(f"benchmark.{name}"))


def fingerprint(model: nn.Module, images: Tensor) -> list[float]:
    """What tells two functions apart: class scores, and the images' gradient seen from a few random directions."""
    images = images.clone().requires_grad_()
    logits = model.train()(images)
    nn.functional.cross_entropy(logits, torch.arange(len(images))).backward()
    assert images.grad is not None
    directions = torch.randn(8, images.numel(), generator=seeded(0)("directions"))
    model.zero_grad()
    return [*logits.flatten().tolist(), *(directions @ images.grad.flatten()).tolist()]


def by_saccade(ours: VisionTransformer) -> tuple[nn.Module, dict[str, Any]]:
    """Our own."""
    return ours, {}


def by_timm(ours: VisionTransformer) -> tuple[nn.Module, dict[str, Any]]:
    """timm's VisionTransformer with torch's fused attention, its default."""
    return _timm(ours, fused=True), {"code": f"timm {version('timm')}", "kernel_run": "sdpa"}


def by_timm_explicit(ours: VisionTransformer) -> tuple[nn.Module, dict[str, Any]]:
    """timm's with its other attention: product, softmax, product."""
    return _timm(ours, fused=False), {"code": f"timm {version('timm')}", "kernel_run": "explicit"}


def by_vit_pytorch(ours: VisionTransformer) -> tuple[nn.Module, dict[str, Any]]:
    """vit-pytorch's ViT, without its two norms around the patch embedding, which others do not have."""
    # Behind `peers`, which makes its import of torchvision work beside any build of torch.
    from vit_pytorch import ViT

    config = ours.config
    model = ViT(
        image_size=config["img_size"],
        patch_size=config["patch_size"],
        num_classes=config["num_classes"],
        dim=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        dim_head=config["embed_dim"] // config["num_heads"],
        mlp_dim=int(config["embed_dim"] * config["mlp_ratio"]),
        channels=config["in_chans"],
    )
    model.to_patch_embedding[1] = nn.Identity()
    model.to_patch_embedding[3] = nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    model.load_state_dict(for_vit_pytorch(ours.state_dict()))
    return model, {"code": f"vit-pytorch {version('vit-pytorch')}", "kernel_run": "explicit"}


RIVALS: dict[str, Callable[[VisionTransformer], tuple[nn.Module, dict[str, Any]]]] = {
    "saccade": by_saccade,
    "timm": by_timm,
    "timm, explicit": by_timm_explicit,
    # vit-pytorch has no biases on queries, keys and values.
    "saccade, no qkv bias": by_saccade,
    "vit-pytorch": by_vit_pytorch,
}


def for_vit_pytorch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names and shapes as vit-pytorch's."""
    layer = {
        "norm1": "0.norm",
        "attn.qkv": "0.to_qkv",
        "attn.proj": "0.to_out.0",
        "norm2": "1.net.0",
        "mlp.fc1": "1.net.1",
        "mlp.fc2": "1.net.4",
    }
    whole = {"norm": "transformer.norm", "head": "mlp_head", "patch_embed.proj": "to_patch_embedding.2"}
    renamed = {"cls_token": state["cls_token"][0], "pos_embedding": state["pos_embed"][0]}
    for name, values in state.items():
        module, _, part = name.rpartition(".")
        if name == "patch_embed.proj.weight":
            # The values of a patch run row, column, channel there.
            values = values.permute(0, 2, 3, 1).flatten(1)
        if module.startswith("blocks."):
            _, number, inner = module.split(".", 2)
            renamed[f"transformer.layers.{number}.{layer[inner]}.{part}"] = values
        elif module:
            renamed[f"{whole[module]}.{part}"] = values
    return renamed


def _timm(ours: VisionTransformer, *, fused: bool) -> nn.Module:
    words = ("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio")
    model = timm.models.vision_transformer.VisionTransformer(**{word: ours.config[word] for word in words})
    for block in model.blocks:
        block.attn.fused_attn = fused
    model.load_state_dict(ours.state_dict())
    return model
