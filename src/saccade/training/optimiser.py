"""AdamW in float32 whatever the weights are, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Devices whose AdamW is one kernel.
_FUSED = ("cpu", "cuda", "mps", "xpu")
# What torch's AdamW keeps of a weight.
_KEPT = ("step", "exp_avg", "exp_avg_sq")
# What comes before the blocks.
_EMBEDDINGS = ("patch_embed", "cls_token", "reg_token", "pos_embed")


class AdamW:
    """torch's fused AdamW over float32 weights.

    Weights of a smaller type get a float32 master copy, which is what the optimiser changes; after each step the model
    is given the copy, rounded. Small updates are then not lost, and the model computes in its own type.

    Args:
        model: its weights as they start, still in float32; `model.to(dtype)` comes afterwards.
        weight_decay: on tensors of two or more axes that `model.no_weight_decay()` does not name.
        betas: of the running means.
        layer_decay: rate of each block over that of the next, as `layer_scales` has it; 1 is one rate for all.
    """

    def __init__(
        self, model: nn.Module, *, weight_decay: float, betas: tuple[float, float], layer_decay: float = 1.0
    ) -> None:
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.names, self.weights = list(trained), list(trained.values())
        # Detached, they share memory with the model's own for as long as those are float32.
        self.masters = [nn.Parameter(weight.detach()) for weight in self.weights]
        device = self.weights[0].device.type
        self.torch = torch.optim.AdamW(
            _groups(trained, self.masters, getattr(model, "no_weight_decay", set)(), weight_decay, layer_decay),
            lr=0.0,
            betas=betas,
            fused=device in _FUSED,
        )

    def take_gradients(self) -> Float[Tensor, ""]:
        """Brings the model's gradients to the masters, in float32; returns the length of all of them together."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        return torch.nn.utils.get_total_norm([master.grad for master in self.masters if master.grad is not None])

    def step(self, rate: float, *, norm: Float[Tensor, ""], longest: float) -> None:
        """One step at learning rate `rate`, gradients of length `norm` scaled down to `longest` unless that is 0."""
        if longest:
            torch.nn.utils.clip_grads_with_norm_(self.masters, longest, norm)
        for group in self.torch.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.torch.step()
        # They would lie beside the activations of the next step.
        self.torch.zero_grad()
        self._write_back()

    @torch.no_grad()
    def make_moments(self) -> None:
        """Makes the running means and counts that the first step would make, all of them 0."""
        for master in self.masters:
            means = {what: torch.zeros_like(master) for what in _KEPT[1:]}
            self.torch.state[master] = {_KEPT[0]: torch.zeros((), device=master.device), **means}

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on beside the weights: running means and counts, and the masters that differ."""
        kept = self.torch.state_dict()["state"]
        state = {
            f"{name}:{what}": value
            for place, name in enumerate(self._numbered())
            for what, value in kept.get(place, {}).items()
        }
        return state | {f"{name}:master": master.detach() for name, _, master in self._copied()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes on what `state` gave, when the model has the weights of then."""
        kept: dict[int, dict[str, Tensor]] = {}
        for place, name in enumerate(self._numbered()):
            values = {what: state[f"{name}:{what}"] for what in _KEPT if f"{name}:{what}" in state}
            kept |= {place: values} if values else {}
        self.torch.load_state_dict({"state": kept, "param_groups": self.torch.state_dict()["param_groups"]})
        for name, _, master in self._copied():
            master.copy_(state[f"{name}:master"])

    def _numbered(self) -> list[str]:
        """Names of the weights, in the order in which torch numbers their masters."""
        name_of = {id(master): name for name, master in zip(self.names, self.masters, strict=True)}
        return [name_of[id(master)] for group in self.torch.param_groups for master in group["params"]]

    def _copied(self) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
        """Names, weights and masters where the two differ: a float32 weight is its own master."""
        triples = zip(self.names, self.weights, self.masters, strict=True)
        return [triple for triple in triples if triple[1].dtype != triple[2].dtype]

    @torch.no_grad()
    def _write_back(self) -> None:
        if copied := self._copied():
            _, weights, masters = zip(*copied, strict=True)
            torch._foreach_copy_(weights, masters)


def learning_rate(step: int, *, steps: int, warmup_steps: int, highest: float, lowest: float, schedule: str) -> float:
    """The rate of one step: a linear rise to `highest`, then half a cosine towards `lowest`, or constant.

    Args:
        step: from 0 to steps - 1.
        steps: of the whole run; the cosine would be at `lowest` in the step after the last.
        warmup_steps: the last of them is the first at `highest`.
        highest: the peak.
        lowest: where the cosine goes.
        schedule: "cosine" or "constant".
    """
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    if schedule == "constant":
        return highest
    done = (step - warmup_steps) / (steps - warmup_steps)
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * done))


def layer_scales(names: Sequence[str], layer_decay: float) -> dict[str, float]:
    """The share of the learning rate that each weight gets: layer_decay to the power of its distance from the head.

    Embeddings, positions and tokens are layer 0, block i is layer i + 1, and what comes after the blocks is the last,
    of share 1; as in BEiT and MAE.

    Args:
        names: of all weights of a model.
        layer_decay: above 0, at most 1.
    """
    layers = {name: int(name.split(".")[1]) + 1 for name in names if name.startswith("blocks.")}
    last = max(layers.values(), default=0) + 1
    layers |= {name: 0 for name in names if name.split(".")[0] in _EMBEDDINGS}
    return {name: layer_decay ** (last - layers.get(name, last)) for name in names}


def _groups(
    trained: dict[str, nn.Parameter],
    masters: list[nn.Parameter],
    kept: set[str],
    weight_decay: float,
    layer_decay: float,
) -> list[dict[str, object]]:
    """Two groups for each share of the rate: matrices decay; biases, norms and what the model names do not."""
    scales = layer_scales(list(trained), layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for scale in sorted(set(scales.values())):
        groups |= {(scale, False): [], (scale, True): []}
    for (name, weight), master in zip(trained.items(), masters, strict=True):
        groups[scales[name], weight.ndim < 2 or name in kept].append(master)
    return [
        {"params": params, "weight_decay": 0.0 if is_free else weight_decay, "lr_scale": scale}
        for (scale, is_free), params in groups.items()
    ]
