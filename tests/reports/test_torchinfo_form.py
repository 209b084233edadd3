"""Our text is torchinfo's, line by line, where torchinfo is right."""

import re

import pytest
import torch
import torchinfo
from torch import nn

from saccade.measurement.operations import operations
from saccade.models.sizes import create_model
from saccade.reports.torchinfo_form import torchinfo_lines

# The lines of the footer in which theirs is wrong.
WRONG = ("Total mult-adds", "Params size", "Estimated Total Size")


def theirs(model, input_size=None, **options):
    return str(torchinfo.summary(model, input_size, verbose=0, device="cpu", **options)).splitlines()


def apart(lines):
    """What is right in both, and the numbers of the other lines."""
    right = [line for line in lines if not line.startswith(WRONG)]
    wrong = {line.split(" (")[0]: float(re.sub(r".*: |,", "", line)) for line in lines if line.startswith(WRONG)}
    return right, wrong


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("options", [{}, {"global_pool": "avg", "init_values": 1e-5, "mlp_layer": "swiglu"}])
@pytest.mark.parametrize("attention", ["softmax", "lambda", "performer", "focused"])
def test_a_classifier_is_as_theirs(attention, options, depth):
    model = create_model("vit_nano_patch1_8", attention, **options)
    size = (2, model.in_chans, *model.img_size)
    assert apart(torchinfo_lines(model, size, depth=depth))[0] == apart(theirs(model, size, depth=depth))[0]


def test_an_autoencoder_is_as_theirs(monkeypatch):
    model = create_model("mae_nano_patch1_8")
    size = (2, model.in_chans, *model.img_size)
    ours = apart(torchinfo_lines(model, size))[0]
    # They stop where a model puts out anything but tensors; ours shows no shape there.
    with pytest.raises(RuntimeError, match="Failed to run torchinfo"):
        theirs(model, size)
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda images: forward(images).loss[None])
    expected = apart(theirs(model, size))[0]
    assert ours[3].split() == ["MaskedAutoencoder", "--", *expected[3].split()[2:]]
    assert ours[4:] == expected[4:]


@pytest.mark.parametrize("name", ["vit_nano_patch1_8", "mae_nano_patch1_8"])
def test_without_an_input_all_modules_are_as_theirs(name):
    model = create_model(name)
    model.norm.requires_grad_(False)
    assert torchinfo_lines(model) == theirs(model)


def test_what_two_modules_share_counts_once_and_twice_in_theirs():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), nn.ModuleList([shared]), nn.Linear(4, 2))
    ours, expected = torchinfo_lines(model), theirs(model)
    differing = [
        (one.split()[-1], other.split()[-1]) for one, other in zip(ours, expected, strict=True) if one != other
    ]
    assert differing == [("--", "20"), ("30", "50"), ("30", "50")]


def test_a_module_that_runs_twice_is_as_theirs():
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = nn.Sequential(inner, inner, nn.Linear(4, 2))
    assert apart(torchinfo_lines(model, (3, 4)))[0] == apart(theirs(model, (3, 4)))[0]


def test_a_list_that_is_left_and_entered_again_is_twice_the_last_one_in_theirs():
    class Lists(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.between = nn.Sequential(nn.ReLU())

        def forward(self, x):
            return self.layers[1](self.between(self.layers[0](x)))

    ours, expected = apart(torchinfo_lines(Lists(), (3, 4)))[0], apart(theirs(Lists(), (3, 4)))[0]
    assert ours[4].split() == ["├─ModuleList:", "1-1", "--", "--"]
    assert ours[:4] + ours[5:] == expected[:4] + expected[5:]
    assert expected[4] == expected[8] == ours[8]
    assert ours[8].endswith("(recursive)")


def test_their_mult_adds_take_one_token_and_ours_are_those_of_torch():
    model = create_model("vit_micro_patch2_32", global_pool="avg")
    _, wrong = apart(theirs(model, (1, 3, 32, 32)))
    learned = sum(one.numel() for name, one in model.named_parameters() if "blocks" in name or "head" in name)
    called = learned + sum(one.numel() for one in model.fc_norm.parameters())
    assert wrong["Total mult-adds"] == pytest.approx(called / 1e6, abs=0.006)
    _, right = apart(torchinfo_lines(model, (1, 3, 32, 32)))
    assert right["Total mult-adds"] == pytest.approx(operations(model)["flops_per_image"] / 2e6, abs=0.006)
    assert right["Total mult-adds"] > 200 * wrong["Total mult-adds"]


def test_their_size_of_the_parameters_leaves_out_class_token_positions_and_what_is_not_called():
    model = create_model("vit_micro_patch2_32")
    wrong, right = (apart(lines(model, (1, 3, 32, 32)))[1] for lines in (theirs, torchinfo_lines))
    fused = [model.cls_token, model.pos_embed, *model.patch_embed.parameters(), *model.blocks[-1].attn.qkv.parameters()]
    assert right["Params size"] == pytest.approx(4 * 829_322 / 1e6, abs=0.006)
    missing = 4 * sum(one.numel() for one in fused) / 1e6
    assert right["Params size"] - wrong["Params size"] == pytest.approx(missing, abs=0.011)
    assert right["Estimated Total Size"] - wrong["Estimated Total Size"] == pytest.approx(missing, abs=0.011)


@pytest.mark.parametrize(
    ("patch", "width", "heads", "attention", "total"),
    [
        (8, 512, 16, "softmax", 27_706_816),
        (8, 512, 16, "lambda", 20_038_848),
        (16, 128, 8, "softmax", 4_048_384),
        (16, 128, 8, "lambda", 3_172_224),
    ],
)
def test_an_autoencoder_of_old_has_the_totals_that_were_printed(patch, width, heads, attention, total):
    """Those of torch-summary, the older version, which counted no parameters of the model itself."""
    sizes = {"patch_size": patch, "in_chans": 1, "embed_dim": 128, "depth": 12, "num_heads": 8}
    decoder = {"decoder_embed_dim": width, "decoder_depth": 8, "decoder_num_heads": heads}
    with torch.device("meta"):
        model = create_model("mae_base_patch16_224", attention, **sizes, **decoder)
    lines = torchinfo_lines(model)
    own = 128 + width
    assert f"Total params: {total + own:,}" in lines
    assert lines[3].split() == ["MaskedAutoencoder", f"{own:,}"]
    if patch == 8:
        attentions = {"softmax": ("Softmax", "66,048", "1,050,624"), "lambda": ("Lambda", "22,240", "157,840")}[
            attention
        ]
        printed = {tuple(line.split()[-3:]) for line in lines}
        text = "\n".join(lines)
        assert re.search(rf"└─{attentions[0]}\w*: 3-\d+ +{attentions[1]}\n", text)
        assert re.search(rf"└─{attentions[0]}\w*: 3-\d+ +{attentions[2]}\n", text)
        assert re.search(r"└─Conv2d: 2-\d+ +8,320\n", text)
        assert re.search(r"└─Mlp: 3-\d+ +131,712\n", text)
        assert re.search(r"└─Mlp: 3-\d+ +2,099,712\n", text)
        assert re.search(r"├─Linear: 1-\d+ +66,048\n", text)
        assert re.search(r"├─Linear: 1-\d+ +32,832\n", text)
        assert printed


def test_the_largest_model_allocates_nothing():
    with torch.device("meta"):
        model = create_model("vit_huge_patch14_224")
    lines = torchinfo_lines(model, (1024, 3, 224, 224))
    assert "Total params: 632,045,800" in lines
