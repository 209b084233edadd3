import pytest

from saccade.training.recipes import list_recipes, named, named_recipe, recipe_for
from saccade.training.setup import objective_of, plan_model


@pytest.mark.parametrize("name", list_recipes())
def test_every_named_recipe_is_one_and_its_model_can_be_built(name):
    recipe = named_recipe(name)
    assert objective_of(recipe)
    assert sum(weight.numel() for weight in plan_model(recipe).parameters()) > 0


@pytest.mark.parametrize("name", list_recipes())
def test_every_named_recipe_states_how_it_was_run_and_what_came_out(name):
    said = named(name)
    assert said.command.startswith(("saccade train ", "saccade pretrain ", "saccade finetune "))
    assert said.machine
    assert said.minutes
    assert said.result
    assert said.text.startswith(f"# {said.title}\n# command: {said.command}\n")


@pytest.mark.parametrize(
    ("data", "model", "name"),
    [
        (None, None, "digits"),
        ("digits", None, "digits"),
        ("cifar10", None, "cifar10-micro"),
        ("/some/where/cifar10/", None, "cifar10-micro"),
        ("photos", None, "vit"),
        ("digits", "vit_micro_patch4_32", "mnist-micro"),
        ("mnist", None, "mnist-micro"),
        ("photos", "vit_micro_patch4_32", "cifar10-micro"),
        ("cifar10", "vit_tiny_patch16_224", "vit"),
        ("cifar10", "vitl", "original-004"),
        ("digits", "mae_nano_patch1_8", "mae-digits"),
        ("mnist", "mae_micro_patch4_32", "mae-cifar10-micro"),
        ("photos", "mae_tiny_patch16_224", "mae"),
    ],
)
def test_where_none_is_named_the_model_or_else_the_data_choose(data, model, name):
    assert recipe_for(data, model) == name


@pytest.mark.parametrize(("data", "name"), [(None, "mae-digits"), ("cifar10", "mae-cifar10-micro"), ("photos", "mae")])
def test_to_pretrain_a_recipe_of_a_masked_autoencoder_is_chosen(data, name):
    assert recipe_for(data, None, pretraining=True) == name


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no recipe 'digit': did you mean digits"):
        named_recipe("digit")


def test_a_file_that_is_no_recipe_is_refused_by_its_name(tmp_path):
    (tmp_path / "mine.toml").write_text("[train]\nlearning_rate = 1\n")
    with pytest.raises(ValueError, match=r"--recipe .*mine.toml: there is no setting 'train.learning_rate'"):
        named_recipe(str(tmp_path / "mine.toml"))


def test_the_decoder_cannot_choose_whose_code_runs_either(tmp_path):
    (tmp_path / "mine.toml").write_text(
        "[model]\nname = 'mae_nano_patch1_8'\noptions = {decoder_attention = 'evil:Mine'}\n"
    )
    with pytest.raises(ValueError, match=r"names the attention 'evil:Mine'"):
        named_recipe(str(tmp_path / "mine.toml"))


MINE = "[model]\nattention = 'softmax,evil:Mine'\noptions = {depth = 2}\n"


def test_a_file_cannot_choose_whose_code_runs(tmp_path):
    (tmp_path / "mine.toml").write_text(MINE)
    with pytest.raises(ValueError, match=r"names the attention 'evil:Mine'.*add --trust-class evil:Mine"):
        named_recipe(str(tmp_path / "mine.toml"))


def test_a_trusted_class_may_be_named_by_a_file(tmp_path):
    (tmp_path / "mine.toml").write_text(MINE)
    assert named_recipe(str(tmp_path / "mine.toml"), ["evil:Mine"]).model.attention == "softmax,evil:Mine"
