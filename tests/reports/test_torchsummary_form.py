"""Our text is torchsummary's, line by line, where torchsummary is right."""

import pytest
import torch
import torchsummary
from torch import nn

from saccade.models.sizes import create_model
from saccade.reports.torchsummary_form import torchsummary_lines, unlisted


def theirs(model, input_size, capsys, **options):
    torchsummary.summary(model, input_size, device="cpu", **options)
    return capsys.readouterr().out.splitlines()


class PatchEmbedding(nn.Module):
    """Of original 003, as its text gives it; what it took from einops stands below."""

    def __init__(self, channels=3, patch=16, width=768, side=224):
        super().__init__()
        self.projection = nn.Sequential(nn.Conv2d(channels, width, patch, patch), Rearrange())
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width))

    def forward(self, x):
        x = self.projection(x)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.positions


class Rearrange(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


class Reduce(nn.Module):
    def forward(self, x):
        return x.mean(1)


class MultiHeadAttention(nn.Module):
    def __init__(self, width=768, heads=8):
        super().__init__()
        self.heads, self.width = heads, width
        self.qkv = nn.Linear(width, 3 * width)
        self.att_drop = nn.Dropout(0.0)
        self.projection = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (self.heads, -1, 3)).permute(4, 0, 2, 1, 3)
        weights = torch.softmax(q @ k.transpose(-2, -1), dim=-1) / self.width**0.5
        return self.projection((self.att_drop(weights) @ v).transpose(1, 2).flatten(2))


class ResidualAdd(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


def original():
    """Original 003: ViT-B/16 of 8 heads that pools all tokens."""

    def block():
        mlp = nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Dropout(0.0), nn.Linear(3072, 768))
        return nn.Sequential(
            ResidualAdd(nn.Sequential(nn.LayerNorm(768), MultiHeadAttention(), nn.Dropout(0.0))),
            ResidualAdd(nn.Sequential(nn.LayerNorm(768), mlp, nn.Dropout(0.0))),
        )

    head = nn.Sequential(Reduce(), nn.LayerNorm(768), nn.Linear(768, 1000))
    return nn.Sequential(PatchEmbedding(), nn.Sequential(*(block() for _ in range(12))), head)


def test_the_third_original_is_as_it_printed_itself():
    with torch.device("meta"):
        lines = torchsummary_lines(original(), (3, 224, 224))
    assert lines[3] == "            Conv2d-1          [-1, 768, 14, 14]         590,592"
    assert lines[8] == "           Dropout-6          [-1, 8, 197, 197]               0"
    assert lines[122] == "MultiHeadAttention-120             [-1, 197, 768]               0"
    assert lines[-11] == "          Linear-174                 [-1, 1000]         769,000"
    assert lines[-10:] == [
        "================================================================",
        "Total params: 86,415,592",
        "Trainable params: 86,415,592",
        "Non-trainable params: 0",
        "----------------------------------------------------------------",
        "Input size (MB): 0.57",
        "Forward/backward pass size (MB): 364.33",
        "Params size (MB): 329.65",
        "Estimated Total Size (MB): 694.56",
        "----------------------------------------------------------------",
    ]


def test_ours_of_the_same_sizes_has_its_parameters_and_puts_out_what_its_own_modules_do():
    with torch.device("meta"):
        model = create_model("vit_base_patch16_224", num_heads=8, global_pool="all")
    lines = torchsummary_lines(model, (3, 224, 224))
    assert "Total params: 86,415,592" in lines
    assert "Input size (MB): 0.57" in lines
    assert "Params size (MB): 329.65" in lines
    assert unlisted(model) == {"cls_token": 768, "pos_embed": 197 * 768}


def number(lines, beginning):
    return float(next(line for line in lines if line.startswith(beginning)).split()[-1].replace(",", ""))


@pytest.mark.parametrize("batch_size", [-1, 3])
@pytest.mark.parametrize("options", [{}, {"global_pool": "avg", "init_values": 1e-5}])
@pytest.mark.parametrize("name", ["softmax", "xca", "fourier", "lambda", "autoencoder"])
def test_it_is_theirs_but_for_weights_of_modules_that_are_not_called(name, options, batch_size, capsys):
    made = ("mae_nano_patch1_8",) if name == "autoencoder" else ("vit_nano_patch1_8", name)
    model = create_model(*made, **({} if name == "autoencoder" else options)).eval()
    size = (model.in_chans, *model.img_size)
    ours = torchsummary_lines(model, size, batch_size=batch_size)
    expected = theirs(model, size, capsys, batch_size=batch_size)

    pairs = [pair for pair in zip(ours, expected, strict=True) if pair[0] != pair[1]]
    footer = ("Total params", "Trainable params", "Params size", "Estimated Total Size")
    rows = [(one, other) for one, other in pairs if not one.startswith(footer)]
    # The patch embedding is a product; so are the last queries, keys and values, where one row is wanted.
    assert {one.split()[0].split("-")[0] for one, _ in rows} <= {"PatchEmbed", "Softmax"}
    assert all(other.endswith(" 0") for _, other in rows)
    missing = sum(number([one], "") for one, _ in rows)
    assert number(ours, "Total params") == number(expected, "Total params") + missing
    learned = sum(one.numel() for one in model.parameters())
    assert number(ours, "Total params") + sum(unlisted(model).values()) == learned
    sizes = [number(lines, beginning) for lines in (ours, expected) for beginning in ("Params size", "Estimated")]
    assert sizes[0] - sizes[2] == pytest.approx(4 * missing / 2**20, abs=0.011)
    assert sizes[1] - sizes[3] == pytest.approx(4 * missing / 2**20, abs=0.011)


def test_what_is_called_twice_learns_once_and_twice_in_theirs(capsys):
    shared = nn.Linear(4, 4)
    shared.bias.requires_grad_(False)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert "Total params: 40" in theirs(model, (4,), capsys)
    ours = torchsummary_lines(model, (4,))
    assert [line.split()[-1] for line in ours[3:6]] == ["20", "0", "0"]
    assert ours[7:10] == ["Total params: 20", "Trainable params: 16", "Non-trainable params: 4"]


def test_what_the_form_has_no_place_for_is_named():
    with torch.device("meta"):
        model = create_model("vit_nano_patch1_8", "lambda", init_values=1e-5)
    assert set(unlisted(model)) == {"cls_token", "gamma", "E", "E_bias"}
    assert unlisted(model)["gamma"] == 4 * 32
