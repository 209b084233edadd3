"""What was pre-trained is ranked by its probe or fine-tuning; its loss is shown and changes nothing."""

import dataclasses

import pytest

from saccade.reports.answer import answer
from saccade.reports.basis import basis
from saccade.reports.columns import columns, legend
from saccade.reports.course import course_of
from saccade.reports.fairness import after, before
from saccade.reports.fairness.plan import Contender, PlanFacts
from saccade.reports.figures import accuracy_cost
from saccade.reports.report import write_report
from saccade.reports.rows import rows
from saccade.reports.scales import Scale
from saccade.reports.tables import markdown

PROBE = {"how": "probe", "method": "linear"}
FINETUNE = {"how": "finetune", "recipe": {"train": {"epochs": 20}}}


def pretrained(records, then=PROBE, **values):
    """The records as those of a comparison of masked autoencoders; `values` go into each run."""
    reference = "random" if then["how"] == "probe" else "scratch"
    told = {
        "test_loss": 0.4,
        "test_mean_picture_loss": 0.6,
        "test_baseline_loss": 1.0,
        f"{reference}_test_top1_percent": 50.0,
        "then_seconds": 2.5,
    }
    return [
        dataclasses.replace(
            one,
            values={**one.values, **(told | values if one.kind == "accuracy" else {})},
            conditions={**one.conditions, "then": then},
        )
        if one.kind in ("accuracy", "tuning")
        else one
        for one in records
    ]


@pytest.fixture
def records(made):
    return made.whole({"softmax": 0.92, "linear": 0.918, "fourier": 0.7}, costs={"linear": 0.7, "fourier": 0.6})


def headings(found):
    return [column.heading[0] for column in columns(found, 1)]


def column_of(found, heading):
    return next(column for column in columns(found, 1) if column.heading[0] == heading)


def test_the_course_is_told_in_words():
    assert course_of([]).told == "trained from scratch"


@pytest.mark.parametrize(
    ("then", "told", "accuracy", "reference"),
    [
        (PROBE, "linear probe", "probe top-1", "random"),
        ({**PROBE, "method": "linear_bn"}, "linear probe behind BatchNorm", "probe top-1", "random"),
        ({**PROBE, "method": "knn"}, "vote of the nearest neighbours", "probe top-1", "random"),
        (FINETUNE, "fine-tuned for 20 epochs", "fine-tune top-1", "scratch"),
    ],
    ids=["linear", "linear-bn", "knn", "finetune"],
)
def test_each_way_to_judge_has_its_words(records, then, told, accuracy, reference):
    course = course_of(pretrained(records, then))
    assert course.told == f"pre-trained for 80 epochs as a masked autoencoder, then {told}"
    assert (course.accuracy, course.reference) == (accuracy, reference)


def test_columns_are_named_for_what_they_hold(records):
    found = rows(pretrained(records))
    assert headings(found)[1:6] == ["probe top-1 %", "to softmax", "verdict", "random %", "loss"]
    assert column_of(found, "loss").cells[0] == ("0.400", "0.600")
    softmax = next(row for row in found if row.baseline)
    assert column_of(found, "random %").cells[0] == ("50.0", f"+{softmax.mean_percent - 50:.1f}")
    assert "scratch %" in headings(rows(pretrained(records, FINETUNE)))
    assert "nothing is ranked by it" in legend(found)


def test_classifiers_have_none_of_it(records):
    found = rows(records)
    assert "top-1 %" in headings(found)
    assert not {"random %", "scratch %", "loss"} & set(headings(found))
    assert "reconstruction_loss" not in found[0].plain()
    assert "probe" not in answer(found, basis(records)) + legend(found)


def test_the_loss_ranks_nothing(records):
    """With losses the other way round, order, verdicts and sentence are the same."""
    one, other = (
        [
            dataclasses.replace(record, values={**record.values, "test_loss": loss[record.attention]})
            if record.kind == "accuracy"
            else record
            for record in pretrained(records)
        ]
        for loss in ({"softmax": 0.1, "linear": 0.3, "fourier": 0.5}, {"softmax": 0.5, "linear": 0.3, "fourier": 0.1})
    )
    assert [(row.attention, row.verdict, row.difference) for row in rows(one)] == [
        (row.attention, row.verdict, row.difference) for row in rows(other)
    ]
    assert answer(rows(one), basis(one), after(one)) == answer(rows(other), basis(other))
    assert [row.loss for row in rows(one)] != [row.loss for row in rows(other)]


def test_the_sentence_says_what_is_compared_and_what_went_before(records):
    told = pretrained(records)
    text = answer(rows(told, 8), basis(told, 8))
    assert text.startswith("Take linear: its probe accuracy is not worse than softmax's")
    assert "; a pre-training step takes 0." in text
    assert "3 seeds, 1 scale, pre-trained for 80 epochs as a masked autoencoder, then linear probe" in text


def test_the_images_of_pre_training_and_those_of_fine_tuning_are_both_told(records):
    assert "86,016 seen by each run)" in basis(records).sentence
    assert "86,016 seen by each run in pre-training)" in basis(pretrained(records)).sentence
    tuned = basis(pretrained(records, FINETUNE, then_images_seen=21_540))
    assert "86,016 seen by each run in pre-training and 21,540 in fine-tuning)" in tuned.sentence


def test_seconds_are_those_of_pre_training_and_of_what_follows(records):
    found = rows(pretrained(records))
    assert found[0].train_seconds == 12.5 + 2.5


def test_the_report_says_that_the_loss_ranks_nothing(records, tmp_path):
    told = pretrained(records)
    found = rows(told)
    text = write_report(tmp_path, [Scale(rows=found, basis=basis(told))], [], "Take linear.").read_text()
    assert "ranks nothing" in text
    assert "| probe top-1 %" in text
    assert accuracy_cost(found, basis(told), tmp_path)
    plain = Scale(rows=rows(records), basis=basis(records))
    assert "ranks nothing" not in write_report(tmp_path, [plain], [], "Take linear.").read_text()


def test_a_row_without_its_reference_or_loss_has_dashes(made):
    found = rows(pretrained([made.accuracy("softmax")]))
    bare = [dataclasses.replace(found[0], reference_percent=None, loss=None, mean_picture_loss=None)]
    assert column_of(bare, "loss").cells == (("–", ""),)
    assert column_of(bare, "random %").cells == (("–", ""),)
    assert "–" in markdown(bare, 1)


def rules(records):
    return {finding.rule: finding for finding in after(records)}


def test_a_loss_that_never_beat_the_mean_is_an_error(records):
    assert "nothing reconstructed" not in rules(pretrained(records))
    found = rules(pretrained(records, test_loss=0.995))["nothing reconstructed"]
    assert found.severity == "error"
    assert found.sentence.endswith(
        "softmax (0.995 against 1.000), linear (0.995 against 1.000), fourier (0.995 against 1.000)"
    )
    own = [
        dataclasses.replace(one, values={**one.values, "test_loss": 1.1})
        if one.kind == "accuracy" and one.attention == "linear"
        else one
        for one in pretrained(records)
    ]
    found = rules(own)["nothing reconstructed"]
    assert found.severity == "warning"
    assert found.sentence.endswith(": linear (1.100 against 1.000)")


def test_a_loss_that_never_beat_the_mean_picture_is_a_warning(records):
    found = rules(pretrained(records, test_loss=0.599))["nothing reconstructed"]
    assert found.severity == "warning"
    assert "whatever patches they are shown: softmax (0.599 against 0.600)" in found.sentence


def test_pre_training_that_added_nothing_is_a_warning(records):
    assert "nothing added" not in rules(pretrained(records))
    found = rules(pretrained(records, random_test_top1_percent=85.0))["nothing added"]
    assert found.severity == "warning"
    assert "fourier (" in found.sentence
    assert "linear (" not in found.sentence


def gained(records, gains):
    """The records with so many points more than without pre-training, by seed; runs of other seeds are left out."""

    def new(one):
        without = {"random_test_top1_percent": one.values["test_top1_percent"] - gains[one.seed]}
        return dataclasses.replace(one, values={**one.values, **without})

    runs = [one for one in pretrained(records) if one.kind == "accuracy" and one.attention == "softmax"]
    return [new(one) for one in runs if one.seed < len(gains)]


@pytest.mark.parametrize(
    ("gains", "told"),
    [
        # The standard deviation is 3.61, t with 2 degrees of freedom 4.30: ± 8.96.
        ((6.0, -1.0, 1.0), "+2.0 points, 95 % interval −7.0 … +11.0"),
        ((-2.0, -2.1, -1.9), "−2.0 points, 95 % interval −2.2 … −1.8"),
        ((-1.0, 0.5), "−0.2 points, without an interval: 2 seeds"),
    ],
    ids=["chance", "a loss", "two seeds"],
)
def test_a_gain_that_its_seeds_do_not_show_is_none(records, gains, told):
    assert f"softmax ({told})" in rules(gained(records, gains))["nothing added"].sentence


@pytest.mark.parametrize("gains", [(2.0, 2.1, 1.9), (1.0, 2.0)], ids=["three seeds", "two seeds"])
def test_a_gain_that_its_seeds_show_is_one(records, gains):
    assert "nothing added" not in rules(gained(records, gains))


def test_the_best_constant_of_simmim_is_called_a_median(records):
    """Its error is absolute."""
    absolute = [dataclasses.replace(one, model_options={"objective": "simmim"}) for one in pretrained(records)]
    assert column_of(rows(absolute), "loss").heading == ("loss", "median picture")
    assert "the training part's median picture" in legend(rows(absolute))
    assert column_of(rows(pretrained(records)), "loss").heading == ("loss", "mean picture")
    for loss, words in ((0.995, "predicting the median:"), (0.599, "no better than the median picture,")):
        worse = [
            dataclasses.replace(one, values={**one.values, "test_loss": loss}) if one.kind == "accuracy" else one
            for one in absolute
        ]
        assert words in rules(worse)["nothing reconstructed"].sentence


def test_runs_that_were_judged_otherwise_are_not_compared(records):
    mixed = [*pretrained(records[:-1]), *pretrained(records[-1:], PROBE)]
    assert "a second thing changed" not in rules(mixed)
    by_knn = {**PROBE, "method": "knn"}
    mixed = [one for each in records for one in pretrained([each], by_knn if each.attention == "linear" else PROBE)]
    assert "then.method" in rules(mixed)["a second thing changed"].sentence


def part(tokens, width, depth=12, head_width=64):
    quadratic, linear = (2 * depth * count for count in (2 * tokens**2 * width, 12 * tokens * width**2))
    size = {"tokens": tokens, "width": width, "depth": depth, "heads": width // head_width, "head_width": head_width}
    return {**size, "quadratic_flops": quadratic, "softmax_flops": quadratic + linear}


def plan(encoder, decoder, **changes):
    stacks = {"encoder": encoder, "decoder": decoder}
    counts = {
        **encoder,
        "parameters": 100,
        "flops_per_image": 1e10,
        "attention_flops_per_image": 4e9,
        "inference_flops_per_image": 3e10,
        "quadratic_share": sum(one["quadratic_flops"] for one in stacks.values())
        / sum(one["softmax_flops"] for one in stacks.values()),
        "stacks": stacks,
    }
    softmax = Contender(attention="softmax", operations=counts, model={"decoder_attention": "softmax"})
    cheaper = {"flops_per_image": 9.5e9, "inference_flops_per_image": 2e10}
    linear = Contender(attention="linear", operations={**counts, **cheaper}, model=softmax.model)
    told = {"seeds": 5, "tuning": "here", "batch_size": 64, "scales": 2, "init": "mae"}
    return PlanFacts(softmax=softmax, rivals=(linear,), **{**told, **changes})


def found(plan_, rule):
    return next((one for one in before(plan_) if one.rule == rule), None)


LARGE = (part(785, 192), part(3137, 128))


def test_both_parts_are_in_the_bound_by_their_arithmetic():
    said = found(plan(*LARGE), "what a swap can gain").sentence
    quadratic = 785**2 * 192 + 3137**2 * 128
    share = quadratic / (quadratic + 6 * (785 * 192**2 + 3137 * 128**2))
    assert f"{100 * share:.1f} % of the blocks' arithmetic" in said
    assert f"gains {1 / (1 - share):.2f} x at most" in said
    assert "785 tokens of width 192 in the encoder and 3137 tokens of width 128 in the decoder" in said
    assert "linear 1.05 x; of inference: linear 1.50 x" in said


def test_a_decoder_that_is_not_swapped_can_gain_nothing():
    fixed = plan(*LARGE, fixed=("decoder",))
    quadratic = 785**2 * 192
    whole = quadratic + 3137**2 * 128 + 6 * (785 * 192**2 + 3137 * 128**2)
    said = found(fixed, "what a swap can gain").sentence
    assert f"{100 * quadratic / whole:.1f} % of the blocks' (that of the encoder alone) arithmetic" in said
    assert "the decoder has softmax in all rows" in found(fixed, "what is swapped").sentence
    assert found(plan(*LARGE), "what is swapped").sentence == "each mechanism is in the encoder and in the decoder"


def test_too_few_visible_tokens_are_told():
    said = found(plan(part(13, 1024), part(50, 512)), "few visible tokens")
    assert said.severity == "warning"
    assert "13 tokens of width 1024, where the quadratic part is 0.2 %" in said.sentence
    assert found(plan(*LARGE), "few visible tokens") is None


def test_the_narrowest_head_that_is_swapped_counts():
    narrow = part(3137, 128, head_width=16)
    assert "heads are 16 wide" in found(plan(LARGE[0], narrow), "head width").sentence
    assert found(plan(LARGE[0], narrow, fixed=("decoder",)), "head width") is None


def test_what_is_gained_afterwards_is_reason_enough_to_go_on():
    from saccade.reports.fairness import stop

    told = plan(*LARGE)
    assert max(told.bounds.values()) < 1.1 < max(told.inference_bounds.values())
    assert stop(told) is None
