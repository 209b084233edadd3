"""Every rule of the doctor speaks of records that have its fault, from these records alone, and of no others."""

import dataclasses

import pytest

from saccade.record import Record
from saccade.reports.fairness import RULES, diagnose, examine, set_beside
from saccade.reports.fairness.finding import ORDER

EXPLICIT = 'softmax(kernel="explicit")'
KERNELS = {"softmax": ("auto", "sdpa"), EXPLICIT: ("explicit", "explicit"), "linear": (None, "eager")}


def part(tokens, width, heads):
    return {"tokens": tokens, "width": width, "depth": 12, "heads": heads, "head_width": width // heads}


LARGE = {"encoder": part(197, 192, 3), "decoder": part(785, 128, 2)}
SMALL = {"encoder": part(13, 1024, 16), "decoder": part(50, 512, 16)}
COUNTED = {
    "parameters": 5_000_000,
    "flops_per_image": 10_000_000_000,
    "inference_flops_per_image": 20_000_000_000,
    "grid": [28, 28],
    "stacks": LARGE,
}
TRIED = [
    {"batch_size": 100, "fits": True, "reason": "ok", "optimiser_steps": 2},
    {"batch_size": 101, "fits": False, "reason": "out of memory", "optimiser_steps": 0},
]


def told(record, scale):
    """The record with every fact that some rule asks for, each as it should be."""
    values, conditions = {}, {"scale": scale} if scale else {}
    options = {"embed_dim": 384} if scale else {}
    if record.kind == "operations":
        attention_flops = {"softmax": 8e9, "linear": 6e9}[record.attention]
        values = {**COUNTED, "attention_flops_per_image": attention_flops}
    if record.kind in ("accuracy", "tuning"):
        conditions |= {"then": {"how": "probe", "method": "linear"}}
    if record.kind == "accuracy":
        values = {"test_loss": 0.4, "test_mean_picture_loss": 0.6, "test_baseline_loss": 1.0}
        values["random_test_top1_percent"] = 50.0
    if record.kind == "seconds":
        values = {"step_steady": True}
        asked, ran = KERNELS[record.attention]
        conditions |= {"kernel_asked": asked, "kernel_run": ran, "synchronised": True, "token_order": "raster"}
        conditions |= {"tokens": 785, "padded_tokens": 785}
    if record.kind == "memory":
        values = {"optimiser_steps": 2, "predicted_bytes": record.values["peak_bytes"], "within": 0.02}
    if record.kind in ("seconds", "memory"):
        conditions["process"] = f"{record.attention} {record.kind} {scale}"
    return dataclasses.replace(
        record,
        values={**record.values, **values},
        conditions={**record.conditions, **conditions},
        model_options=options,
    )


@pytest.fixture
def good(made):
    """Two mechanisms, pre-trained, at two scales: nothing is wrong with them, and every rule can be asked."""
    records = []
    for scale in ("", "twice the width"):
        own = made.whole({"softmax": 0.92, "linear": 0.91}, costs={"linear": 0.8}, seeds=5)
        records += [told(one, scale) for one in own]
    values = {"largest_batch": 100, "predicted_largest_batch": 100, "tried": TRIED, "verified": "here"}
    records += [dataclasses.replace(made.memory(name), kind="batch", values=values) for name in ("softmax", "linear")]
    return records


def changed(kind, attention=None, /, *, only=lambda record: True, **changes):
    """What makes records bad: those of a kind and mechanism are changed; a mapping is merged."""

    def new(record):
        if record.kind not in kind.split() or attention not in (None, record.attention) or not only(record):
            return record
        merged = {
            name: {**getattr(record, name), **value} if isinstance(value, dict) else value
            for name, value in changes.items()
        }
        return dataclasses.replace(record, **merged)

    return lambda records: [new(record) for record in records]


def without(dropped):
    """Or some are left out."""
    return lambda records: [record for record in records if not dropped(record)]


def both(*steps):
    def done(records):
        for step in steps:
            records = step(records)
        return records

    return done


def like_softmax(records):
    """Linear attention answers as softmax does."""
    answers = {
        (one.seed, one.model_options.get("embed_dim")): one.values
        for one in records
        if one.kind == "accuracy" and one.attention == "softmax"
    }
    return [
        dataclasses.replace(one, values=answers[one.seed, one.model_options.get("embed_dim")])
        if one.kind == "accuracy"
        else one
        for one in records
    ]


def rate(lr):
    return {"recipe": {"train": {"lr": lr}}}


NYSTROM = {"attention": "nystrom(landmarks=64)", "attention_resolved": "nystrom(landmarks=64)"}
SEVEN = {"grid": [7, 7], "stacks": SMALL}
COSTS = "seconds memory"

BAD = {
    "degenerate": ("error", both(changed("operations", values=SEVEN), changed("operations", "linear", **NYSTROM))),
    "what a swap can gain": ("warning", changed("operations", values={"stacks": SMALL})),
    "few visible tokens": (
        "warning",
        changed("operations", values={"stacks": {**LARGE, "encoder": part(13, 1024, 16)}}),
    ),
    "more work than softmax": ("warning", changed("operations", "linear", values={"attention_flops_per_image": 9e9})),
    "parameters": ("warning", changed("operations", "linear", values={"parameters": 6_000_000})),
    "head width": ("warning", changed("operations", values={"stacks": {**LARGE, "decoder": part(785, 128, 8)}})),
    "launch-bound": ("warning", changed(COSTS, conditions={"device": "cuda", "batch_size": 1})),
    "unfused": ("warning", changed(COSTS, conditions={"device": "cuda:0"})),
    "seeds": ("error", without(lambda one: one.kind == "accuracy" and one.seed > 1)),
    "untuned": ("warning", without(lambda one: one.kind == "tuning")),
    "tuned beforehand": (
        "note",
        both(without(lambda one: one.kind == "tuning"), changed("accuracy", "linear", **rate(3e-3))),
    ),
    "what is swapped": ("note", lambda records: records),
    "copied data": ("warning", changed("accuracy", data={"copied": True})),
    "one scale": ("warning", without(lambda one: "scale" in one.conditions)),
    "from scratch only": ("warning", changed("accuracy tuning", conditions={"then": None})),
    "a second thing changed": ("error", changed("accuracy", "linear", model_options={"patch_size": 1})),
    "unequal terms": ("error", changed("seconds", "linear", conditions={"threads": 2})),
    "unlike machines": ("error", changed("memory", "linear", machine={"processor": "another"})),
    "unlike versions": ("warning", changed("accuracy", "linear", machine={"commit": "later"})),
    "shuffled tokens": ("error", changed("seconds", "linear", **NYSTROM, conditions={"token_order": "random"})),
    "padded tokens": ("error", changed("seconds", "linear", conditions={"tokens": 13, "padded_tokens": 50})),
    "diverged": (
        "warning",
        changed("accuracy", "linear", only=lambda one: one.seed == 4, values={}, error="diverged: x"),
    ),
    "same answers": ("error", like_softmax),
    "nothing learned": ("warning", changed("accuracy", "linear", values={"test_top1_percent": 12.0})),
    "nothing reconstructed": ("warning", changed("accuracy", "linear", values={"test_loss": 0.995})),
    "nothing added": ("warning", changed("accuracy", "linear", values={"random_test_top1_percent": 95.0})),
    "mixed rates": ("error", changed("accuracy", "linear", only=lambda one: one.seed == 1, **rate(3e-3))),
    "optimum at the edge": (
        "warning",
        changed(
            "tuning",
            "linear",
            only=lambda one: one.recipe["train"]["lr"] == 3e-3,
            values={"validation_top1_percent": 99.0},
        ),
    ),
    "selection on test": ("error", changed("tuning", values={"test_top1_percent": 90.0})),
    "not measured": ("warning", changed("memory", "linear", values={}, error="failed: NameError: attn")),
    "no warm-up": ("error", changed("seconds", "linear", values={"warmup_step_seconds": []})),
    "not steady": ("warning", changed("seconds", "linear", values={"step_steady": False})),
    "shared process": ("error", changed("memory", conditions={"process": "one"})),
    "one step": ("error", changed("memory", "linear", values={"optimiser_steps": 1})),
    "few repeats": ("warning", changed("seconds", "linear", values={"step_seconds": [0.1]})),
    "busy machine": ("warning", changed("seconds", "linear", conditions={"busy": True})),
    "processor time": ("note", changed("seconds", conditions={"clock": "cpu"})),
    "clock read too early": ("error", changed("seconds", "linear", conditions={"synchronised": False})),
    "round without softmax": ("warning", changed("seconds", "linear", round="another day")),
    "not the best softmax": ("warning", without(lambda one: one.attention == EXPLICIT)),
    "kernel not run": ("error", changed("seconds", EXPLICIT, conditions={"kernel_run": "sdpa"})),
    "crash counted as no fit": (
        "error",
        changed("batch", "linear", values={"tried": [TRIED[0], {**TRIED[1], "reason": "failed"}]}),
    ),
    "prediction off": ("warning", changed("batch", "linear", values={"predicted_largest_batch": 110})),
    "prediction unverified": ("note", changed("batch", "linear", values={"verified": "unverified"})),
}
"""For each rule its severity, and what makes good records have its fault."""

# Notes that hold of good records, too.
ALWAYS = {"what a swap can gain": "note", "what is swapped": "note"}


def found(records, name):
    return [one for one in examine(records) if one.rule == name]


def test_good_records_give_no_more_than_notes_and_every_rule_is_asked_of_them(good):
    diagnosis = diagnose(good)
    assert {one.rule: one.severity for one in diagnosis.findings} == ALWAYS
    assert diagnosis.asked == tuple(rule.name for rule in RULES)
    assert diagnosis.lacking == {}


def test_every_rule_has_records_with_its_fault():
    assert sorted(BAD) == sorted(rule.name for rule in RULES)


@pytest.mark.parametrize("name", BAD)
def test_a_fault_is_seen_in_the_records(good, name):
    severity, spoil = BAD[name]
    bad = found(spoil(good), name)
    assert bad
    assert bad[0].severity == severity
    assert bad[0].sentence[-1] not in ".:;,"


def test_a_classifier_is_told_nothing_of_parts(good):
    classifier = changed("operations", values={"stacks": {"encoder": LARGE["decoder"]}})
    assert not found(classifier(good), "what is swapped")


ISSUE = {
    "degenerate mechanism, is softmax": {"degenerate", "same answers"},
    "works more than softmax, by declared FLOPs or by padded tokens": {"more work than softmax", "padded tokens"},
    "something beside the attention changed": {"a second thing changed"},
    "too few steps for optimiser state": {"one step"},
    "several models in one process": {"shared process"},
    "no warm-up": {"no warm-up", "not steady"},
    "launch-bound": {"launch-bound"},
    "attention's share too small to matter": {"what a swap can gain", "few visible tokens"},
    "unlike machines or versions": {"unlike machines", "unlike versions"},
    "shuffled visible tokens": {"shuffled tokens"},
    "clock read before synchronising": {"clock read too early"},
    "a baseline that is not the best softmax": {"not the best softmax", "round without softmax"},
    "a flag asked for that never ran": {"kernel not run"},
    "a crash counted as does not fit": {"crash counted as no fit", "not measured"},
    "loss not below predicting the mean": {"nothing reconstructed", "nothing learned", "nothing added"},
    "untuned; optimum at the edge": {"untuned", "tuned beforehand", "optimum at the edge", "mixed rates"},
    "fewer than 3 or 5 seeds": {"seeds", "diverged"},
    "selection on test": {"selection on test"},
    "parameters differ by more than 10 %": {"parameters"},
    "head width under 32": {"head width"},
    "one scale only; from scratch only": {"one scale", "from scratch only"},
    "unequal terms; unfused against fused": {"unequal terms", "unfused"},
    "a copied data set": {"copied data"},
    "busy machine; few repeats": {"busy machine", "few repeats", "processor time"},
    "which part is swapped": {"what is swapped"},
    "predictions held to what was measured": {"prediction off", "prediction unverified"},
}
"""What was asked of the doctor, and the rules that do it."""


def test_all_that_was_asked_for_is_there_and_nothing_else():
    assert sorted(name for names in ISSUE.values() for name in names) == sorted(rule.name for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_says_what_it_looks_for_and_who_has_gone_wrong_there(rule):
    assert rule.what.endswith(".")
    assert rule.fault.endswith(".")
    assert rule.fault.startswith(("Original", "No original"))
    assert set(rule.severities) <= set(ORDER)
    assert rule.needs
    assert not rule.remedy.endswith(".")


@pytest.mark.parametrize("original", ["000", "001", "002", "004"])
def test_each_original_is_named_by_the_rules_that_would_have_caught_it(original):
    assert [rule.name for rule in RULES if original in rule.fault]


def test_what_no_record_tells_is_said_and_not_guessed():
    diagnosis = diagnose([])
    assert diagnosis.findings == []
    assert diagnosis.asked == ()
    assert diagnosis.lacking["seeds"] == "training runs"
    assert set(diagnosis.lacking) == {rule.name for rule in RULES}


def test_a_value_of_another_kind_than_its_name_says_keeps_one_rule_from_being_asked(good):
    odd = changed("seconds", "linear", values={"step_seconds": 0.1})(good)
    diagnosis = diagnose(without(lambda one: "scale" in one.conditions)(odd))
    assert "TypeError" in diagnosis.lacking["few repeats"]
    assert "busy machine" in diagnosis.asked


def test_what_holds_at_one_scale_alone_says_so(good):
    spoiled = changed(
        "operations", "linear", only=lambda one: "scale" in one.conditions, values={"parameters": 6_000_000}
    )
    (one,) = found(spoiled(good), "parameters")
    assert one.sentence.startswith("at twice the width, the model's parameters differ")
    (one,) = found(BAD["parameters"][1](good), "parameters")
    assert one.sentence.startswith("the model's parameters differ")


def test_a_rival_is_meant_to_be_another_model(good):
    """And is no softmax to be held against, though that is its attention."""
    marks = {"conditions": {"rival": "softmax at depth=1"}, "model_options": {"depth": 1}}
    rivals = [
        one for one in good if one.attention == "softmax" and "scale" not in one.conditions and one.kind != "batch"
    ]
    rivals = changed("operations accuracy tuning seconds memory", **marks)(rivals)
    rivals = changed("operations", values={"parameters": 1_000_000})(rivals)
    rivals = changed("seconds memory", conditions={"process": "its own"})(rivals)
    names = {one.rule for one in examine([*good, *rivals])}
    # Its runs here are copies of softmax's.
    assert names == {*ALWAYS, "same answers"}


def test_softmax_of_a_model_without_qkv_bias_is_the_baseline_there(good):
    """Where all others have no such bias either."""
    named = 'softmax(kernel="sdpa", qkv_bias=False)'
    bare = changed("seconds", "softmax", attention=named, attention_resolved=named)(good)
    bare = [one for one in bare if one.kind == "seconds" and one.attention != EXPLICIT]
    assert found(
        changed("seconds", "linear", attention_resolved="linear(qkv_bias=True)")(bare), "round without softmax"
    )
    assert not found(
        changed("seconds", "linear", attention_resolved="linear(qkv_bias=False)")(bare), "round without softmax"
    )


def layer(attention, tokens, **conditions):
    """A timing as bench writes it."""
    side = round(tokens**0.5)
    size = {"what": "layer", "tokens": tokens, "grid": [side, side], "prefix": 0, "width": 512, "heads": 8}
    terms = {"device": "cpu", "batch_size": 4, "threads": 1, "process": f"{attention} {tokens}"}
    return Record(
        kind="seconds",
        attention=attention,
        attention_resolved=attention,
        model="layer",
        model_options={"dim": 512, "grid": [side, side]},
        values={"forward_seconds": [0.1] * 5, "warmup_forward_seconds": [0.1]},
        conditions={**size, **terms, "kernel_run": KERNELS.get(attention, KERNELS["linear"])[1], **conditions},
        round=str(tokens),
    )


def test_layers_are_examined_size_by_size():
    names = ('softmax(kernel="sdpa")', EXPLICIT, "linear", "nystrom(landmarks=49)")
    records = [layer(name, tokens) for tokens in (49, 784) for name in names]
    records = [changed("seconds", names[0], conditions={"kernel_run": "sdpa"})([one])[0] for one in records]
    findings = examine(records)
    assert {one.rule for one in findings} == {"degenerate", "what a swap can gain", "more work than softmax"}
    (degenerate,) = [one for one in findings if one.rule == "degenerate"]
    assert "nystrom(landmarks=49) on 49 tokens" in degenerate.sentence
    gains = {one.severity: one.sentence for one in findings if one.rule == "what a swap can gain"}
    # 49 / (49 + 6 * 512) = 1.6 %, and 784 / (784 + 6 * 512) = 20.3 %.
    assert "with 49 tokens of width 512 the quadratic part is 1.6 %" in gains["warning"]
    assert "with 784 tokens of width 512 the quadratic part is 20.3 %" in gains["note"]
    (work,) = [one for one in findings if one.rule == "more work than softmax"]
    assert work.sentence.startswith("at 49 tokens")


def test_a_bench_at_two_batch_sizes_is_fair_so_long_as_softmax_is_in_both():
    records = [layer(name, 784, batch_size=batch) for batch in (1, 4) for name in ("softmax", EXPLICIT, "linear")]
    assert not found(records, "unequal terms")
    (one,) = found(
        [one for one in records if (one.attention, one.conditions["batch_size"]) != ("softmax", 1)][1:], "unequal terms"
    )
    assert "batch_size (1, 4)" in one.sentence or "batch_size (4, 1)" in one.sentence


def test_a_median_that_stands_for_many_repeats_says_so(good):
    """Published measurements are often no more than that, and how many they were."""
    median = changed("seconds", "linear", values={"step_seconds": [0.1], "step_repeats": 365})
    assert not found(median(good), "few repeats")
    assert found(changed("seconds", "linear", values={"step_repeats": 4})(median(good)), "few repeats")


def test_a_decoder_that_has_its_encoders_attention_is_no_second_change(good):
    """As one that has the same in all rows is none; where it is some other, it is one."""

    def decoded(records, decoder):
        return [
            dataclasses.replace(one, model_options={**one.model_options, "decoder_attention": decoder(one)})
            for one in records
            if "scale" not in one.conditions and one.attention != EXPLICIT
        ]

    own = decoded(good, lambda one: one.attention)
    assert not found(own, "a second thing changed")
    assert found(own, "what is swapped")[0].sentence == "each mechanism is in the encoder and in the decoder"
    fixed = decoded(good, lambda one: "softmax")
    assert not found(fixed, "a second thing changed")
    assert "the decoder has softmax in all rows" in found(fixed, "what is swapped")[0].sentence
    mixed = decoded(good, lambda one: "softmax" if one.attention == "softmax" else "fourier")
    assert "model.decoder_attention" in found(mixed, "a second thing changed")[0].sentence


def test_a_class_of_somebodys_own_is_not_run_from_a_file(tmp_path, monkeypatch, good):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit('it ran')")
    mine = {"attention": "mine.py:Mine", "attention_resolved": "mine.py:Mine(rank=8)"}
    examine(changed("operations seconds", "linear", **mine, conditions={"token_order": "random"})(good))


def test_folders_are_held_against_each_other_in_what_must_be_the_same(good):
    here = without(lambda one: "scale" in one.conditions)(good)
    assert set_beside([here, here]) == []
    there = changed("operations accuracy tuning seconds memory batch", machine={"torch": "2.99"})(here)
    assert [one for one in examine(there) if one.severity == "error"] == []
    (one,) = [one for one in set_beside([here, there]) if one.severity == "error"]
    assert one.rule == "unlike machines"
    assert 'torch ("2.13.0", "2.99")' in one.sentence


def test_what_an_older_record_does_not_tell_is_no_difference(good):
    def older(record):
        told = {name: value for name, value in record.conditions.items() if name not in ("checkpointing", "compile")}
        return dataclasses.replace(record, conditions=told) if record.attention == "linear" else record

    assert not found([older(one) for one in good], "unequal terms")
