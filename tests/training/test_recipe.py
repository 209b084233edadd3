import string

import pytest

from saccade.training.checked import setting_names
from saccade.training.recipe import (
    Recipe,
    parse_settings,
    recipe_from_dict,
    recipe_from_toml,
    recipe_to_dict,
    recipe_to_toml,
    with_values,
)

SETTINGS = list(setting_names(Recipe))


def one_letter_edits(word, letters):
    for place in range(len(word)):
        yield word[:place] + word[place + 1 :]
        for letter in letters:
            yield word[:place] + letter + word[place + 1 :]
            yield word[:place] + letter + word[place:]


def changed():
    return with_values(
        Recipe(),
        {
            "model.options": {"depth": 6, "img_size": [32, 16], "drop_path_rate": 0.1, "pos_embed": 'a "quoted" word'},
            "model.attention": "nystrom(landmarks=16)",
            "data.limit": 100,
            "train.lr": 3e-4,
            "train.betas": [0.9, 0.95],
            "train.amp_dtype": "bf16",
        },
    )


@pytest.mark.parametrize("recipe", [Recipe(), changed()], ids=["default", "changed"])
def test_toml_and_dict_give_the_same_recipe_back(recipe):
    assert recipe_from_toml(recipe_to_toml(recipe)) == recipe
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe


def test_settings_are_read_as_users_write_them():
    recipe = with_values(
        Recipe(),
        parse_settings(
            [
                "train.lr=3e-4",
                "train.epochs = 12",
                "train.betas=0.9,0.95",
                "train.dtype=bf16",
                "model.attention=nystrom(landmarks=16)",
                "model.options.img_size=[32, 16]",
                "model.options.class_token=false",
                "data.name=my pictures/2024",
                "data.limit=None",
            ]
        ),
    )
    assert (recipe.train.lr, recipe.train.epochs, recipe.train.betas) == (3e-4, 12, (0.9, 0.95))
    assert (recipe.train.dtype, recipe.data.name, recipe.data.limit) == ("bf16", "my pictures/2024", None)
    assert recipe.model.attention == "nystrom(landmarks=16)"
    assert recipe.model.options == {"img_size": (32, 16), "class_token": False}


def test_the_later_setting_wins():
    assert with_values(Recipe(), parse_settings(["train.lr=1", "train.lr=2"])).train.lr == 2.0


def check_edits(name, letters):
    section, _, own = name.partition(".")
    for edited in {f"{section}.{one}" for one in one_letter_edits(own, letters)} - set(SETTINGS):
        with pytest.raises(ValueError, match=rf"did you mean {name}\?"):
            with_values(Recipe(), {edited: 1})
    for edited in set(one_letter_edits(section, letters)) - {section}:
        with pytest.raises(ValueError, match=rf"did you mean {section}\?"):
            with_values(Recipe(), {f"{edited}.{own}": 1})


@pytest.mark.parametrize("name", SETTINGS)
def test_a_one_letter_edit_of_a_name_is_refused_with_that_name(name):
    check_edits(name, letters="")


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_every_one_letter_edit_of_every_name_is_refused_with_that_name(name):
    check_edits(name, letters=string.ascii_lowercase)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.epochs=0", "train.epochs = 0: must be at least 1"),
        ("train.epochs=3.5", "train.epochs = 3.5: must be a whole number"),
        ("train.lr=fast", "train.lr = 'fast': must be a number"),
        ("train.lr=0", "train.lr = 0.0: must be above 0"),
        ("train.label_smoothing=1", "train.label_smoothing = 1.0: must be at least 0 and at most 0.99"),
        ("train.dtype=fp16", "train.dtype = 'fp16': must be 'fp32' or 'bf16'"),
        ("train.min_lr=1", r"train.min_lr = 1: must be at most train.lr, which is 0.001"),
        ("train.seed=-1", "train.seed = -1: must be at least 0"),
        ("data.crop_pct=1.5", "data.crop_pct = 1.5: must be above 0 and at most 1"),
        ("data.limit=0", "data.limit = 0: must be at least 1"),
        ("lr=1e-3", r"no setting 'lr': did you mean train.lr\?"),
        ("train=3", "train = 3: must be a table of settings"),
        ("train.lr.high=3", "no setting 'train.lr.high': did you mean train.lr"),
        ("train.lr", "--set train.lr: write name=value, as in train.lr=3e-4"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(setting, said):
    with pytest.raises(ValueError, match=said):
        with_values(Recipe(), parse_settings([setting]))


def test_bf16_weights_under_autocast_are_refused():
    with pytest.raises(ValueError, match="give one of the two"):
        with_values(Recipe(), parse_settings(["train.dtype=bf16", "train.amp_dtype=bf16"]))


def test_a_value_out_of_range_is_refused_from_python_too():
    from saccade.training.recipe import TrainRecipe

    with pytest.raises(ValueError, match=r"train.epochs = 0: must be at least 1"):
        TrainRecipe(epochs=0)


def test_what_is_no_toml_is_refused_with_its_line():
    with pytest.raises(ValueError, match=r"no TOML: .*line 2"):
        recipe_from_toml("[train]\nlr = fast\n")
