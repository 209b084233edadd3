"""Attentions with one fault each, in the way of somebody's own class; `Sound` has none."""

import torch
from torch import nn

from saccade.attention.base import MultiHead
from saccade.attention.initial import fill_normal, unseeded


class Sound(MultiHead):
    """Softmax with a learned position of each patch added to the values: depends on ids, has something on the grid."""

    paper = "none"
    cost = "N² D"
    any_length = True
    free_of_order = False
    needs_grid = False
    exact_when = "never"

    def __init__(self, dim, num_heads, tokens, *, layer=0, **shared):
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.position = nn.Parameter(torch.empty(tokens.patches, self.head_dim))
        self.reset_parameters(unseeded)

    def placed(self, v, patches):
        rows = self.position[None] if patches is None else self.position[patches]
        return v + nn.functional.pad(rows, (0, 0, self.tokens.prefix, 0))[:, None]

    def mix(self, q, k, v, patches):
        return torch.softmax((q @ k.mT) * self.head_dim**-0.5, -1) @ self.placed(v, patches)

    def reference_mix(self, q, k, v, patches):
        weights = torch.exp(torch.einsum("bhie,bhje->bhij", q, k) / self.head_dim**0.5)
        return weights / weights.sum(-1, keepdim=True) @ self.placed(v, patches)

    def mix_flops(self, patches, rows):
        return 4 * rows * (self.tokens.prefix + patches) * self.dim

    @property
    def mix_order_free(self):
        return False

    def reset_parameters(self, generator_of):
        super().reset_parameters(generator_of)
        fill_normal(self.position, generator_of("position"))

    def resample(self, old):
        rows = self.position.detach().T.unflatten(1, old.grid)[None]
        self.position = nn.Parameter(nn.functional.interpolate(rows, size=self.tokens.grid).flatten(2)[0].T)


class OfFloat32(Sound):
    def forward(self, x, patches=None, outputs=None):
        return super().forward(x, patches, outputs).float()


class ScaledAfterSoftmax(Sound):
    def mix(self, q, k, v, patches):
        return torch.softmax(q @ k.mT, -1) * self.head_dim**-0.5 @ self.placed(v, patches)


class WithoutNormaliser(Sound):
    def mix(self, q, k, v, patches):
        return torch.exp(q @ k.mT * self.head_dim**-0.5) @ self.placed(v, patches)


class WithoutGradientOfKeys(Sound):
    def mix(self, q, k, v, patches):
        return super().mix(q, k.detach(), v, patches)


class Columnwise(Sound):
    """Takes ids as if they ran down the columns."""

    def placed(self, v, patches):
        rows, columns = self.tokens.grid
        ids = patches if patches is None else patches // columns + patches % columns * rows
        return super().placed(v, ids)


class IdsOfFirstImage(Sound):
    def placed(self, v, patches):
        return super().placed(v, None if patches is None else patches[:1])


class SaysOrderFree(Sound):
    @property
    def mix_order_free(self):
        return True


class OrderFree(Sound):
    """Order-free where no ids are used, as they should be."""

    free_of_order = True

    def placed(self, v, patches):
        return v

    @property
    def mix_order_free(self):
        return True


class HidesThatOrderIsFree(OrderFree):
    @property
    def mix_order_free(self):
        return False


class OrderOfIds(OrderFree):
    """Free of order on the whole grid, not on a part."""

    def placed(self, v, patches):
        return v if patches is None else v + torch.arange(v.shape[2])[:, None]


class FactOfOrder(Sound):
    free_of_order = True


class FactOfLength(Sound):
    any_length = False


class HiddenRefusal(Sound):
    def refusal(self, patches):
        return "broken on so few patches: take more" if patches < 5 else None


class FactOfGrid(Sound):
    needs_grid = True


class HiddenGrid(Sound):
    def placed(self, v, patches):
        return v * self.tokens.grid[0]


class WithoutPaper(Sound):
    paper = None


class ReachesLess(Sound):
    def reach(self, patches=None, part="all"):
        return torch.eye(len(super().reach(patches)), dtype=torch.bool)


class ReachesMore(Sound):
    """Its own token only, yet says that all matter."""

    def mix(self, q, k, v, patches):
        return q * k * self.placed(v, patches)


class HiddenPart(Sound):
    """The second part moves every token by one, yet says that it leaves them in place."""

    def moved(self, x):
        return x.roll(1, dims=1)

    def forward(self, x, patches=None, outputs=None):
        return sum(self.parts(x, patches).values())[:, outputs or slice(None)]

    def parts(self, x, patches=None):
        return {"near": MultiHead.forward(self, x, patches), "moved": self.moved(x)}

    def reach(self, patches=None, part="all"):
        everywhere = super().reach(patches)
        return torch.eye(len(everywhere), dtype=torch.bool) if part == "moved" else everywhere


class ForgottenPart(HiddenPart):
    def parts(self, x, patches=None):
        return {"near": MultiHead.forward(self, x, patches)}

    def forward(self, x, patches=None, outputs=None):
        return (MultiHead.forward(self, x, patches) + self.moved(x))[:, outputs or slice(None)]


class LargestOfBatch(Sound):
    def mix(self, q, k, v, patches):
        return super().mix(q, k, v / v.detach().abs().max(), patches)


class TooManyFlops(Sound):
    def mix_flops(self, patches, rows):
        return super().mix_flops(patches, rows) + 1


class FlopsOfAllRows(Sound):
    def flops(self, patches, rows=None):
        return super().flops(patches)


class FlopsOfWholeGridAlone(Sound):
    def mix_flops(self, patches, rows):
        whole = patches == self.tokens.patches
        return super().mix_flops(patches, rows) if whole else 0


class NextRows(Sound):
    def forward(self, x, patches=None, outputs=None):
        whole = super().forward(x, patches)
        return whole if outputs is None else whole.roll(1, dims=1)[:, outputs]


class WrongLimit(OrderFree):
    exact_when = "always"

    def mix(self, q, k, v, patches):
        return torch.softmax(q @ k.mT / self.head_dim, -1) @ v

    @classmethod
    def softmax_limit(cls, tokens):
        return {}


class LoneTokenIsNan(Sound):
    def placed(self, v, patches):
        spread = (v - v.mean(2, keepdim=True)).square().sum(2, keepdim=True) / (v.shape[2] - 1 or torch.nan)
        return super().placed(v, patches) / spread.sqrt()


class Draws(Sound):
    def placed(self, v, patches):
        return nn.functional.dropout(super().placed(v, patches), 0.5)


class RefusesWithoutReason(Sound):
    def refusal(self, patches):
        return "no" if patches < 5 else None


class SumsInHalf(Sound):
    """The normaliser one key after the other, in the dtype of the input."""

    def mix(self, q, k, v, patches):
        weights = torch.exp(q @ k.mT * self.head_dim**-0.5)
        total = 0
        for one in weights.unbind(-1):
            total = total + one
        return weights / total[..., None] @ self.placed(v, patches)


class KeepsNoState(Sound):
    """A random mixture of channels that is no buffer."""

    def __init__(self, dim, num_heads, tokens, *, layer=0, **shared):
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.mixture = torch.randn(self.head_dim)

    def placed(self, v, patches):
        return super().placed(v, patches) * self.mixture


class ForgetsPosition(Sound):
    def reset_parameters(self, generator_of):
        MultiHead.reset_parameters(self, generator_of)


class ForgetsBuffer(Sound):
    def __init__(self, dim, num_heads, tokens, *, layer=0, **shared):
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.register_buffer("unused", torch.ones(3, dtype=torch.bool), persistent=False)


class DrawsFromTorch(Sound):
    def reset_parameters(self, generator_of):
        super().reset_parameters(generator_of)
        nn.init.normal_(self.position)


class OneStartForAllSeeds(Sound):
    def reset_parameters(self, generator_of):
        super().reset_parameters(generator_of)
        generator_of("position")
        fill_normal(self.position, torch.Generator().manual_seed(0))


class StartOfAnotherName(Sound):
    def reset_parameters(self, generator_of):
        super().reset_parameters(generator_of)
        fill_normal(self.position, generator_of("somewhere"))


class StaysOnOldGrid(Sound):
    def resample(self, old):
        pass


class MovesOldGrid(Sound):
    def regrid(self, tokens):
        other = super().regrid(tokens)
        with torch.no_grad():
            self.position.zero_()
        return other


class TakesAnyPrefix(Sound):
    def regrid(self, tokens):
        return (
            type(self)(self.dim, self.num_heads, tokens).double() if tokens != self.tokens else super().regrid(tokens)
        )


class CountsCalls(Sound):
    def __init__(self, dim, num_heads, tokens, *, layer=0, **shared):
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, patches=None, outputs=None):
        if self.training:
            self.calls += 1
        return super().forward(x, patches, outputs)


class LooksAtValues(Sound):
    def mix(self, q, k, v, patches):
        return super().mix(q if q.sum().item() > 0 else q.clone(), k, v, patches)


class Raises(Sound):
    def regrid(self, tokens):
        raise KeyError("somebody's own error")
