"""The originals: what was printed then stands here, and what is printed now is held against it."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from saccade.cli import app
from saccade.models.sizes import create_model
from saccade.originals import ORIGINALS, find_original
from saccade.originals.logged import log_line
from saccade.originals.mae_blocks import LOGGED, MaeBlocks
from saccade.originals.mae_lambda import MaeLambda
from saccade.originals.original import Asked, Beside, shallower
from saccade.originals.vit_einops import VitEinops
from saccade.originals.xformers_vit import MODEL as NARROW
from saccade.originals.xformers_vit import OPTIONS, PROFILED, XformersVit


def counted(one) -> dict[str, Beside]:
    """The rows that need no run."""
    return {row.what: row for row in one.counted().beside}


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("000", {"329,237,760", "329,295,104"}),
        ("001", {"27,706,816", "20,038,848", "4,048,384", "3,172,224", "22,240", "157,840", "66,048", "1,050,624"}),
        ("003", {"86,415,592"}),
        ("004", {"829,322", "924,426", "1,017,162"}),
    ],
)
def test_every_model_has_the_parameters_that_were_printed(name, printed):
    rows = [row for row in find_original(name).counted().beside if row.theirs in printed]
    assert {row.theirs for row in rows} == printed
    assert all(row.comparable == "yes: equal" and row.ours == row.theirs for row in rows)


@pytest.mark.parametrize("logged", LOGGED, ids=lambda logged: logged.name)
def test_the_first_s_seven_models_build_in_full_size_with_its_dimensions(logged):
    subject = logged.subject(Asked(batch_size=64, threads=1))
    with torch.device("meta"):
        model = create_model(subject.model, subject.attention, **subject.options)
    assert (model.embed_dim, len(model.blocks), model.decoder_embed_dim, len(model.decoder_blocks)) == (
        1024,
        24,
        512,
        8,
    )
    assert (model.tokens.patches, model.visible, model.decoder_pred.out_features) == (49, 12, 768)
    assert model.reversible is (logged.name not in ("plain blocks", "xFormers blocks"))


def test_the_quadratic_parts_of_the_first_are_a_fifth_and_two_percent():
    rows = counted(MaeBlocks())
    assert rows["quadratic part of the encoder's arithmetic"].ours == "0.2 % at 13 tokens"
    assert rows["quadratic part of the decoder's arithmetic"].ours == "1.6 % at 50 tokens"


def numbers(lines) -> list[int]:
    """The last column of a tree, where it holds a number."""
    return [int(line.split()[-1].replace(",", "")) for line in lines if re.fullmatch(r"[├│└].* [\d,]+", line)]


@pytest.mark.parametrize(
    ("attention", "encoder", "decoder"), [("softmax", 66_048, 1_050_624), ("lambda", 22_240, 157_840)]
)
def test_the_second_s_tables_have_the_column_that_torchinfo_printed(attention, encoder, decoder):
    lines = list(MaeLambda().counted().lines)
    begin = next(place for place, line in enumerate(lines) if line.startswith(f"- {attention} → "))
    table = lines[begin + 1 : lines.index("", begin)]
    assert table[1] == "Layer (type:depth-idx)                   Param #"
    blocks = 12 * [256, encoder, 256, 131_712] + [256, 66_048] + 8 * [1_024, decoder, 1_024, 2_099_712]
    assert numbers(table) == [8_320, *blocks, 1_024, 32_832]
    # Class and mask token, which it overlooked, are in the sum.
    assert f"Total params: {sum(numbers(table)) + 128 + 512:,}" in table


def test_nine_taps_of_eighty_one_see_data():
    rows = counted(MaeLambda())
    assert rows["taps that see data, on the strip"].ours == "9 of 81"
    assert rows["taps that see data, on the grid"].ours == "81 of 81"


def test_the_third_s_model_and_mask_are_those_of_its_script():
    with torch.device("meta"):
        model = create_model(NARROW, PROFILED[0].written, **OPTIONS)
    block = model.blocks[0]
    assert (model.embed_dim, len(model.blocks), block.attn.num_heads, block.mlp.fc1.out_features) == (96, 8, 8, 288)
    assert block.attn.qkv.bias is None
    assert block.attn.proj.bias is not None
    assert model.tokens.count == 197
    assert float(counted(XformersVit())["sparsity of the mask"].ours) == pytest.approx(0.806, abs=0.003)


def printed_table() -> list[str]:
    """The 174 rows that the original shows: one block of them, twelve times, between embedding and head."""
    rows = [("Conv2d", [768, 14, 14], 590_592), ("Rearrange", [196, 768], 0), ("PatchEmbedding", [197, 768], 0)]
    for _ in range(12):
        rows += [("LayerNorm", [197, 768], 1_536), ("Linear", [197, 2304], 1_771_776), ("Dropout", [8, 197, 197], 0)]
        rows += [("Linear", [197, 768], 590_592), ("MultiHeadAttention", [197, 768], 0), ("Dropout", [197, 768], 0)]
        rows += [("ResidualAdd", [197, 768], 0), ("LayerNorm", [197, 768], 1_536), ("Linear", [197, 3072], 2_362_368)]
        rows += [("GELU", [197, 3072], 0), ("Dropout", [197, 3072], 0), ("Linear", [197, 768], 2_360_064)]
        rows += [("Dropout", [197, 768], 0), ("ResidualAdd", [197, 768], 0)]
    rows += [("Reduce", [768], 0), ("LayerNorm", [768], 1_536), ("Linear", [1000], 769_000)]
    return [
        f"{f'{name}-{number}':>20}  {[-1, *shape]!s:>25} {count:>15,}"
        for number, (name, shape, count) in enumerate(rows, 1)
    ]


FOOTER = """\
Total params: 86,415,592
Trainable params: 86,415,592
Non-trainable params: 0
----------------------------------------------------------------
Input size (MB): 0.57
Forward/backward pass size (MB): 364.33
Params size (MB): 329.65
Estimated Total Size (MB): 694.56
----------------------------------------------------------------"""


def test_the_fourth_s_table_is_the_one_it_printed_line_by_line():
    part = VitEinops().counted()
    printed = printed_table()
    assert len(printed) == 174
    assert printed[5] == "           Dropout-6          [-1, 8, 197, 197]               0"
    assert list(part.lines[3:177]) == printed
    assert "\n".join(part.lines[178:]) == FOOTER
    assert all(row.comparable == "yes: equal" for row in part.beside if row.theirs != "overlooked")


LOG = re.compile(r"time: \d+\.\d{4}  data: \d+\.\d{4}  max mem: (\d+|–)")


@pytest.mark.parametrize(
    "line",
    [
        "time: 0.1458  data: 0.0001  max mem: 3893",
        log_line(0.14578, 0.00009, 3893 * 2**20 + 17),
        log_line(12.5, 0.0, None),
    ],
)
def test_a_line_of_the_log_has_the_original_s_form(line):
    assert LOG.fullmatch(line)


def test_the_log_s_line_is_the_original_s_to_the_letter():
    assert log_line(0.1458, 0.0001, 3893 * 2**20) == "time: 0.1458  data: 0.0001  max mem: 3893"


@pytest.mark.parametrize("name", ORIGINALS)
def test_an_original_is_found_by_id_and_by_name(name):
    assert find_original(name).id == find_original(ORIGINALS[name].name).id == name


@pytest.mark.parametrize(
    ("name", "near"), [("005", "did you mean 00"), ("mae-lamda", "did you mean mae-lambda"), ("x", "003 (vit-einops)")]
)
def test_an_unknown_original_is_refused_with_the_known_ones(name, near):
    with pytest.raises(ValueError, match="there is no original") as refused:
        find_original(name)
    assert near in str(refused.value)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("003", {"epochs": 3}, "--epochs means nothing for 003, which takes no option of size"),
        ("002", {"images": 9}, "--images means nothing for 002, which takes --batch-size, --repeats"),
        ("000", {"scale": 0}, "--scale 0: must be at least 1"),
    ],
)
def test_an_option_that_means_nothing_is_refused(name, given, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        find_original(name).asked(given, device="cpu", threads=1)


def test_a_scale_divides_the_depth_and_leaves_a_block():
    assert [shallower(24, scale) for scale in (1, 8, 100)] == [24, 3, 1]


def test_the_page_of_the_originals_is_what_they_say():
    from tests.test_documents import generate

    text = (Path(__file__).parents[2] / "docs" / "originals.md").read_text(encoding="utf-8")
    assert text == generate.originals(), "run `python docs/generate.py`"


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_command_that_asks_fairly_is_understood(name):
    saccade, *arguments = shlex.split(find_original(name).instead)
    verb, _, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    assert saccade == "saccade"
    assert verb.__name__ == arguments[0].replace("-", "_")
