"""The doctor's rules on sizes: whether a mechanism is itself there, and whether a swap could matter or be measured."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.reports.fairness.case import Case
from saccade.reports.fairness.finding import listed
from saccade.reports.fairness.needs import BATCH_SIZE, KERNELS, OPERATIONS
from saccade.reports.fairness.plan import PlanFacts, arithmetic
from saccade.reports.fairness.rule import Rule, Seen
from saccade.reports.numbers import counted
from saccade.reports.ratios import EQUAL
from saccade.reports.terms import device_kind

MOST_PARAMETER_DIFFERENCE = 0.10
LEAST_HEAD_WIDTH = 32

# About 20 kernels a block, 5 µs to launch each, at what such a device computes meanwhile: 0.2 TFLOP/s on a processor,
# 3 on a laptop's GPU, 50 on a server's. Below so much arithmetic a block, time counts kernels.
LAUNCH_BOUND_FLOPS = {"cpu": 2e7, "mps": 3e8, "cuda": 5e9}


def degenerate(case: Case) -> Iterator[Seen]:
    """A mechanism that is softmax, or more work than softmax, at this size, as its own class says.

    Original 000: "nystrom" had 64 landmarks for 13 and 50 tokens, so it was softmax, to the megabyte.
    """
    for plan in case.plans:
        for one in plan.contenders:
            if one.refusal:
                yield Seen(one.refusal)


def gain(case: Case) -> Iterator[Seen]:
    """How much of a model's arithmetic a swap could save at the most.

    Original 000: at 13 and 50 tokens the quadratic part was 0.2 % and 1.6 % of the arithmetic: nothing could have been
    gained.
    """
    for plan in _counted(case):
        share = plan.quadratic_share
        most = 1 / (1 - share)
        ratios = {"softmax's declared FLOPs over each model's": plan.bounds, "of inference": plan.inference_bounds}
        told = [
            f"{what}: {listed((f'{name} {bound:.2f} x' for name, bound in bounds.items()), 12)}"
            for what, bounds in ratios.items()
            if bounds
        ]
        sentence = (
            f"{_sizes(plan)} the quadratic part is {100 * share:.1f} % of {_whose(plan)} arithmetic, so a swap that "
            f"keeps softmax's projections gains {most:.2f} x at most; "
            + "; ".join([*told, "this bounds arithmetic, not time or memory"])
        )
        yield Seen(sentence) if most < EQUAL else Seen(sentence, "note", "")


def few_visible(case: Case) -> Iterator[Seen]:
    """An encoder that sees so few tokens in pre-training that its attention costs next to nothing.

    Original 000: 13 visible tokens, where the quadratic part was 0.2 % of the encoder's arithmetic.
    """
    for plan in _counted(case):
        encoder = plan.parts["encoder"]
        quadratic, whole = arithmetic(encoder)
        if len(plan.parts) > 1 and whole / (whole - quadratic) < EQUAL:
            yield Seen(
                f"pre-training shows the encoder {encoder['tokens']} tokens of width {encoder['width']}, where the "
                f"quadratic part is {100 * quadratic / whole:.1f} % of its arithmetic: no mechanism can save a tenth "
                "of that before whole images are encoded"
            )


def more_work(case: Case) -> Iterator[Seen]:
    """An "efficient" mechanism whose declared arithmetic is more than softmax's.

    Original 000: "linformer" padded 13 tokens to 50, so it did more work than softmax.
    """
    for plan in _counted(case):
        softmax = plan.softmax.operations.get("attention_flops_per_image")
        ratios = {
            one.attention: one.operations["attention_flops_per_image"] / softmax
            for one in plan.rivals
            if softmax and one.operations.get("attention_flops_per_image")
        }
        dear = [f"{name} {ratio:.2f} x" for name, ratio in ratios.items() if ratio > 1]
        if dear:
            yield Seen(
                f"{_at(plan)} the attention layers of these do more arithmetic than softmax's: {listed(dear)}",
            )


def parameters(case: Case) -> Iterator[Seen]:
    """A mechanism that brings its own size to the model.

    Original 001: 20.0 million parameters with lambda layers beside 27.7 million with softmax.
    """
    for plan in _counted(case):
        softmax = plan.softmax.operations.get("parameters")
        changes = {
            one.attention: one.operations["parameters"] / softmax - 1
            for one in plan.rivals
            if softmax and one.operations.get("parameters")
        }
        far = {name: change for name, change in changes.items() if abs(change) > MOST_PARAMETER_DIFFERENCE}
        if far:
            yield Seen(
                "the model's parameters differ from softmax's by more than 10 %: "
                + listed(f"{name} ({100 * change:+.0f} %)" for name, change in far.items())
                + "; accuracy may come from size"
            )


def head_width(case: Case) -> Iterator[Seen]:
    """Heads so narrow that feature maps and landmarks have no room; papers' results are at 64.

    Originals 001, 002 and 004: heads 16 and 12 wide.
    """
    for plan in _counted(case):
        width = min((part["head_width"] for part in plan.swapped.values() if "head_width" in part), default=None)
        if width is not None and width < LEAST_HEAD_WIDTH:
            yield Seen(
                f"heads are {width} wide: low-rank and kernel mechanisms suffer below {LEAST_HEAD_WIDTH}, softmax less"
            )


def launch_bound(case: Case) -> Iterator[Seen]:
    """Calls so small that their time is that of starting kernels.

    Original 002: width 96 at batch 1 on an A100, where the sparse mechanisms came out slower: kernels were counted.
    """
    for plan in _counted(case):
        if plan.device is None or plan.batch_size is None:
            continue
        bound, one_image = LAUNCH_BOUND_FLOPS.get(device_kind(plan.device), 0.0), plan.timed_flops
        if one_image * plan.batch_size < bound:
            yield Seen(
                f"{plan.timed} at batch {plan.batch_size} does {counted(one_image * plan.batch_size, 'FLOP')}: on "
                f"{plan.device} the time is that of starting kernels, and counts them"
            )
        elif one_image < bound and _has_latency(case):
            yield Seen(
                f"latency at batch 1 counts kernels: a block does {counted(one_image, 'FLOP')} for one image",
                "note",
                "",
            )


def unfused(case: Case) -> Iterator[Seen]:
    """Eager code raced against a fused kernel, which says who wrote kernels, not which function is dear.

    Original 000: its blocks from xFormers had fused norms and MLPs, those of its baseline had not.
    """
    for plan in case.plans:
        if plan.device is None or device_kind(plan.device) == "cpu" or plan.softmax.kernel in (*_STEPWISE, None):
            continue
        eager = [one.attention for one in plan.rivals if one.kernel == "eager"]
        if eager:
            yield Seen(
                f"softmax runs torch's fused kernel, these run one eager kernel after another: {listed(eager)}; a "
                "fused one of theirs would be faster"
            )


SIZE_RULES = (
    Rule("degenerate", degenerate, ("error",), (OPERATIONS,), "change its options, or leave it out"),
    Rule(
        "what a swap can gain",
        gain,
        ("warning", "note"),
        (OPERATIONS,),
        "more tokens: larger images or smaller patches",
    ),
    Rule(
        "few visible tokens",
        few_visible,
        ("warning",),
        (OPERATIONS,),
        "more patches, or a lower model.options.mask_ratio, if the cost of pre-training is the question",
    ),
    Rule("more work than softmax", more_work, ("warning",), (OPERATIONS,), "smaller options, or more tokens"),
    Rule(
        "parameters",
        parameters,
        ("warning",),
        (OPERATIONS,),
        "read their rows with that in mind, or compare at another width of theirs",
    ),
    Rule("head width", head_width, ("warning",), (OPERATIONS,), "a wider model or fewer heads"),
    Rule("launch-bound", launch_bound, ("warning", "note"), (OPERATIONS, BATCH_SIZE), "a larger batch or model"),
    Rule(
        "unfused",
        unfused,
        ("warning",),
        (KERNELS,),
        "hold them against the explicit softmax too, which is in the table",
    ),
)

_STEPWISE = ("eager", "explicit")


def _counted(case: Case) -> Iterator[PlanFacts]:
    """The plans whose sizes are known."""
    return (plan for plan in case.plans if plan.softmax.operations)


def _has_latency(case: Case) -> bool:
    """Whether inference of one image is timed, as every comparison does."""
    return case.told is not None or any("latency_seconds" in one.values for one in case.timed)


def _at(plan: PlanFacts) -> str:
    """Of several sizes, which one."""
    layer = "stacks" not in plan.softmax.operations and not plan.softmax.operations.get("parameters")
    return f"at {plan.softmax.operations['tokens']} tokens" if layer else "at this size"


def _sizes(plan: PlanFacts) -> str:
    """The numbers that the gain depends on."""
    told = {name: f"{part['tokens']} tokens of width {part['width']}" for name, part in plan.parts.items()}
    if len(told) == 1:
        return f"with {told['encoder']}"
    return f"with {' and '.join(f'{words} in the {name}' for name, words in told.items())}"


def _whose(plan: PlanFacts) -> str:
    """What the share is a part of."""
    if len(plan.parts) == 1:
        return "a block's"
    return "the blocks'" if not plan.fixed else f"the blocks' (that of the {' and '.join(plan.swapped)} alone)"
