"""One masked autoencoder by three hands: saccade's, facebookresearch/mae's, transformers', on the same weights."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from peers import timm, transformers
from rivals import randomise
from saccade.attention.initial import seeded
from saccade.measurement.allocator import trim
from saccade.measurement.memory.scale import scale_for
from saccade.measurement.memory.tracked import STEPS
from saccade.measurement.step import RATE, autocast, random_images
from saccade.measurement.subject import Subject
from saccade.measurement.terms import DTYPES
from saccade.measurement.timed import Timed
from saccade.models.mae import MaskedAutoencoder
from saccade.models.mae_weights import transformers_state
from saccade.models.sizes import create_model
from saccade.training.optimiser import AdamW

EPS = 1e-6
CHECKED_IMAGES = 2

# The names that files on the hub have, as transformers' module has them.
FROM_HUB = {
    "encoder.layer.": "layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}

Loss = Callable[[Tensor, Tensor], Tensor]


def timed_rival(code: str, subject: dict[str, Any]) -> Timed:
    """One rival in a process of its own; its facts say which code it is and what function it computes."""
    terms = Subject(**subject)
    model, loss, facts = made(code, terms)
    facts = {"kernel_asked": None, **facts, "function": fingerprint(model, loss, random_images_of(terms))}
    return Timed({"step": MaeStep(model, loss, terms, optimiser_of(code))}, terms.terms, facts)


class MaePeak:
    """One rival in a process of its own, whose training step is weighed."""

    def __init__(self, code: str, subject: dict[str, Any], checkpointing: bool) -> None:
        self.code, self.subject, self.checkpointing = code, Subject(**subject), checkpointing
        self.scale = scale_for(torch.device("cpu"))

    def measure(self) -> dict[str, Any]:
        """As `saccade.measurement.memory.peak`: steps on one image first, then those that count."""
        self._train(replace(self.subject, batch_size=1))
        gc.collect()
        trim()
        baseline = self.scale.start()
        self._train(self.subject)
        return {"peak_bytes": self.scale.peak() - baseline, "baseline_bytes": baseline, "method": self.scale.method}

    def _train(self, subject: Subject) -> None:
        model, loss, _ = made(self.code, subject, self.checkpointing)
        step = MaeStep(model, loss, subject, optimiser_of(self.code))
        for _ in range(STEPS):
            step()


class PublishedAdamW:
    """torch's AdamW as facebookresearch/mae's main_pretrain.py makes it: not fused, on the model's own weights."""

    def __init__(self, model: nn.Module, *, weight_decay: float, betas: tuple[float, float]) -> None:
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        # As timm's param_groups_weight_decay, which main_pretrain.py calls.
        free = [weight for weight in self.weights if weight.ndim < 2]
        decayed = [weight for weight in self.weights if weight.ndim >= 2]
        groups = [{"params": free, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]
        self.torch = torch.optim.AdamW(groups, betas=betas)

    def take_gradients(self) -> Tensor:
        """The length of the gradients, which its NativeScaler computes in every step."""
        return torch.nn.utils.get_total_norm([weight.grad for weight in self.weights if weight.grad is not None])

    def step(self, rate: float, *, norm: Tensor, longest: float) -> None:
        """One step, without clipping."""
        for group in self.torch.param_groups:
            group["lr"] = rate
        self.torch.step()
        self.torch.zero_grad()


Optimiser = type[AdamW] | type[PublishedAdamW]


class MaeStep:
    """A pre-training step: forward, backward, AdamW.

    Args:
        model: in float32; it is cast to the subject's dtype.
        loss: of images and noise.
        subject: the terms.
        optimiser: fused and with float32 master weights for every rival but the one "as published".
    """

    def __init__(self, model: nn.Module, loss: Loss, subject: Subject, optimiser: Optimiser = AdamW) -> None:
        self.subject, self.loss = subject, loss
        self.optimiser = optimiser(model, weight_decay=0.05, betas=(0.9, 0.95))
        self.model = model.to(DTYPES[subject.dtype]).train()
        self.images = random_images_of(subject).to(DTYPES[subject.dtype])
        self.noise = noise_for(self.images, model)

    def __call__(self) -> None:
        """One step."""
        with autocast(self.subject.terms):
            loss = self.loss(self.images, self.noise)
        loss.backward()
        self.optimiser.step(RATE, norm=self.optimiser.take_gradients(), longest=0.0)


def made(code: str, subject: Subject, checkpointing: bool = False) -> tuple[nn.Module, Loss, dict[str, Any]]:
    """A rival's model with weights that are the same for all, what gives its loss, and whose code it is."""
    ours = create_model(subject.model, **subject.options)
    assert isinstance(ours, MaskedAutoencoder)
    randomise(ours)
    return RIVALS[code.removesuffix(AUTOCAST)](ours, checkpointing)


def optimiser_of(code: str) -> Optimiser:
    """The rival as published has an optimiser of its own."""
    return PublishedAdamW if code.removesuffix(AUTOCAST) == PUBLISHED else AdamW


def random_images_of(subject: Subject) -> Tensor:
    """The same for all rivals."""
    with torch.device("meta"):
        planned = create_model(subject.model, **subject.options)
    return random_images(planned, subject.batch_size)


def noise_for(images: Tensor, model: nn.Module) -> Tensor:
    """Which patches of each image are hidden: the same for all rivals."""
    patches = model.patches if isinstance(model, FacebookMae) else _patches(model)
    return torch.rand(len(images), patches, generator=torch.Generator().manual_seed(1))


def fingerprint(model: nn.Module, loss: Loss, images: Tensor) -> list[float]:
    """What tells two functions apart: the loss, and the images' gradient seen from a few random directions."""
    images = images[:CHECKED_IMAGES].clone().requires_grad_()
    model.train()
    value = loss(images, noise_for(images, model))
    value.backward()
    assert images.grad is not None
    directions = torch.randn(8, images.numel(), generator=seeded(0)("directions"))
    model.zero_grad()
    return [value.item(), *(directions @ images.grad.flatten()).tolist()]


def by_saccade(ours: MaskedAutoencoder, checkpointing: bool) -> tuple[nn.Module, Loss, dict[str, Any]]:
    """Our own."""
    ours.set_grad_checkpointing(checkpointing)
    return ours, lambda images, noise: ours(images, noise).loss, {"code": f"saccade {version('saccade')}"}


def by_facebook(ours: MaskedAutoencoder, checkpointing: bool, *, fused: bool) -> tuple[nn.Module, Loss, dict[str, Any]]:
    """facebookresearch/mae's, with attention as in the timm 0.3.2 that it asks for, or by torch's fused kernel."""
    model = FacebookMae(ours.config, fused=fused)
    positions = {"pos_embed": ours.pos_embed, "decoder_pos_embed": ours.decoder_pos_embed}
    model.load_state_dict({**ours.state_dict(), **positions})
    model.grad_checkpointing = checkpointing
    kernel = "sdpa" if fused else "explicit"
    return model, model, {"code": f"facebookresearch/mae on timm {version('timm')}", "kernel_run": kernel}


def by_transformers(ours: MaskedAutoencoder, checkpointing: bool) -> tuple[nn.Module, Loss, dict[str, Any]]:
    """transformers' ViTMAEForPreTraining with its default attention."""
    config = ours.config
    model = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            hidden_size=config["embed_dim"],
            num_hidden_layers=config["depth"],
            num_attention_heads=config["num_heads"],
            intermediate_size=int(config["embed_dim"] * config["mlp_ratio"]),
            image_size=config["img_size"][0],
            patch_size=config["patch_size"][0],
            num_channels=config["in_chans"],
            decoder_hidden_size=config["decoder_embed_dim"],
            decoder_num_hidden_layers=config["decoder_depth"],
            decoder_num_attention_heads=config["decoder_num_heads"],
            decoder_intermediate_size=int(config["decoder_embed_dim"] * config["mlp_ratio"]),
            mask_ratio=config["mask_ratio"],
            norm_pix_loss=config["norm_pix_loss"],
            layer_norm_eps=EPS,
            attn_implementation="sdpa",
        )
    )
    renamed = {}
    for name, values in transformers_state(ours).items():
        for on_hub, here in FROM_HUB.items():
            name = name.replace(on_hub, here)
        renamed[name] = values
    model.load_state_dict(positions_of(model) | renamed)
    if checkpointing:
        model.activation_checkpointing_enable()
    facts = {"code": f"transformers {version('transformers')}", "kernel_run": "sdpa"}
    return model, lambda images, noise: model(images, noise=noise).loss, facts


def positions_of(model: nn.Module) -> dict[str, Tensor]:
    """The fixed sines of transformers' model, which ours does not keep among its weights."""
    return {name: values for name, values in model.state_dict().items() if "pos" in name}


class FacebookMae(nn.Module):
    """facebookresearch/mae's model as its models_mae.py computes it, out of timm's parts as there.

    It is no package, so its steps are written anew here, each as it is there: every patch is embedded by the
    convolution, then most are dropped; the decoder's sequence is brought into raster order; all of its blocks, its norm
    and the prediction run on all tokens; the loss is the mean over all patches of masked errors.

    Args:
        config: of a `MaskedAutoencoder`.
        fused: timm's attention by torch's fused kernel, or as product, softmax, product.
    """

    def __init__(self, config: dict[str, Any], *, fused: bool) -> None:
        super().__init__()
        self.mask_ratio = config["mask_ratio"]
        self.norm_pix_loss = config["norm_pix_loss"]
        self.patch = config["patch_size"][0]
        self.grad_checkpointing = False
        width, decoder_width = config["embed_dim"], config["decoder_embed_dim"]
        sizes = (config["img_size"], config["patch_size"], config["in_chans"], width)
        self.patch_embed = timm.layers.PatchEmbed(*sizes)
        self.patches = self.patch_embed.num_patches
        count = 1 + self.patches
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, count, width), requires_grad=False)
        self.blocks = _blocks(width, config["depth"], config["num_heads"], config["mlp_ratio"], fused)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, count, decoder_width), requires_grad=False)
        in_decoder = (config["decoder_depth"], config["decoder_num_heads"], config["mlp_ratio"], fused)
        self.decoder_blocks = _blocks(decoder_width, *in_decoder)
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=EPS)
        self.decoder_pred = nn.Linear(decoder_width, self.patch**2 * config["in_chans"])

    def forward(self, images: Float[Tensor, "b c y x"], noise: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
        """The loss."""
        latent, mask, places = self.encode(images, noise)
        return self.loss(images, self.decode(latent, places), mask)

    def encode(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of the visible patches behind the class token, the mask, and the way back into raster order."""
        x = self.patch_embed(images) + self.pos_embed[:, 1:]
        count, patches, width = x.shape
        kept = int(patches * (1 - self.mask_ratio))
        order = torch.argsort(noise, dim=1)
        places = torch.argsort(order, dim=1)
        x = torch.gather(x, 1, order[:, :kept].unsqueeze(-1).repeat(1, 1, width))
        mask = torch.ones([count, patches], device=x.device)
        mask[:, :kept] = 0
        mask = torch.gather(mask, 1, places)
        x = torch.cat(((self.cls_token + self.pos_embed[:, :1]).expand(count, -1, -1), x), dim=1)
        return self.norm(self._through(self.blocks, x)), mask, places

    def decode(self, latent: Tensor, places: Tensor) -> Tensor:
        """The pixels of every patch."""
        x = self.decoder_embed(latent)
        masked = self.mask_token.repeat(len(x), places.shape[1] + 1 - x.shape[1], 1)
        patches = torch.cat([x[:, 1:], masked], dim=1)
        patches = torch.gather(patches, 1, places.unsqueeze(-1).repeat(1, 1, x.shape[2]))
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos_embed
        return self.decoder_pred(self.decoder_norm(self._through(self.decoder_blocks, x)))[:, 1:]

    def loss(self, images: Tensor, pred: Tensor, mask: Tensor) -> Tensor:
        """The mean squared error of hidden patches."""
        count, channels, rows, columns = images.shape
        down, right = rows // self.patch, columns // self.patch
        cut = images.reshape(count, channels, down, self.patch, right, self.patch)
        target = torch.einsum("nchpwq->nhwpqc", cut).reshape(count, down * right, -1)
        if self.norm_pix_loss:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
        loss = ((pred - target) ** 2).mean(-1)
        return (loss * mask).sum() / mask.sum()

    def _through(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing else block(x)
        return x


def _blocks(width: int, depth: int, heads: int, mlp_ratio: float, fused: bool) -> nn.ModuleList:
    norm = partial(nn.LayerNorm, eps=EPS)
    block = partial(timm.models.vision_transformer.Block, width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm)
    blocks = [block() for _ in range(depth)]
    for one in blocks:
        one.attn.fused_attn = fused
    return nn.ModuleList(blocks)


def _patches(model: nn.Module) -> int:
    """How many patches an image has."""
    if isinstance(model, MaskedAutoencoder):
        return model.tokens.patches
    return model.vit.embeddings.patch_embeddings.num_patches


AUTOCAST = ", autocast"
PUBLISHED = "fb as published"

RIVALS: dict[str, Callable[[MaskedAutoencoder, bool], tuple[nn.Module, Loss, dict[str, Any]]]] = {
    "saccade": by_saccade,
    "fb": partial(by_facebook, fused=True),
    PUBLISHED: partial(by_facebook, fused=True),
    "fb, explicit": partial(by_facebook, fused=False),
    "transformers": by_transformers,
}
