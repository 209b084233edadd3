"""The doctor's rules that need no more than the plan: said before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from saccade.reports.finding import Finding, listed
from saccade.reports.numbers import many
from saccade.reports.plan import PlanFacts
from saccade.reports.ratios import EQUAL
from saccade.reports.statistics import LEAST_SEEDS
from saccade.reports.terms import device_kind, differing

ENOUGH_SEEDS = 5
MOST_PARAMETER_DIFFERENCE = 0.10
LEAST_HEAD_WIDTH = 32

# About 20 kernels a block, 5 µs to launch each, at what such a device computes meanwhile: 0.2 TFLOP/s on a processor,
# 3 on a laptop's GPU, 50 on a server's. Below so much arithmetic a block, time counts kernels.
LAUNCH_BOUND_FLOPS = {"cpu": 2e7, "mps": 3e8, "cuda": 5e9}

PlanRule = Callable[[PlanFacts], Iterator[Finding]]


def refused(plan: PlanFacts) -> Iterator[Finding]:
    """A mechanism that is another one at this size: "nystrom" of 64 landmarks for 13 tokens was softmax itself."""
    for one in plan.contenders:
        if one.refusal:
            yield Finding("degenerate", "error", one.refusal, "change its options, or leave it out")


def second_change(plan: PlanFacts) -> Iterator[Finding]:
    """Models that differ in more than the attention: patch size 2 for softmax, 1 for linear attention."""
    changed = differing(dict(one.model) for one in plan.contenders)
    for name, values in changed.items():
        yield Finding(
            "a second thing changed",
            "error",
            f"{name} is not the same for all: {listed(values)}; no difference can be put down to the attention",
            "give every mechanism the same model",
        )


def seeds(plan: PlanFacts) -> Iterator[Finding]:
    """One run each, called a result: 75.83 % against 65.58 %, and nobody knows what a second run would have said."""
    if plan.seeds < LEAST_SEEDS:
        yield Finding(
            "seeds",
            "error",
            f"{many(plan.seeds, 'seed')}: accuracies are shown, but chance cannot be told from "
            "difference, so nothing is decided",
            f"--seeds {ENOUGH_SEEDS} ({LEAST_SEEDS} at the least)",
        )
    elif plan.seeds < ENOUGH_SEEDS:
        yield Finding(
            "seeds",
            "warning",
            f"{plan.seeds} seeds give wide intervals: true differences may stay undecided",
            f"--seeds {ENOUGH_SEEDS}; finished runs are kept",
        )


def tuning(plan: PlanFacts) -> Iterator[Finding]:
    """One untuned recipe for all, mostly the one that suits softmax: gaps between methods shrink when all are tuned."""
    if plan.tuning == "none":
        yield Finding(
            "untuned",
            "warning",
            "every mechanism is trained at the recipe's learning rate, which may suit one and not another",
            "--tune 5 tries the same rates for each",
        )
    if plan.tuning == "beforehand":
        yield Finding("tuned beforehand", "note", f"learning rates come from the tuning runs in {plan.tuned_where}")


def parameters(plan: PlanFacts) -> Iterator[Finding]:
    """A mechanism that brings its own size: more parameters win for another reason than the attention."""
    softmax = plan.softmax.operations["parameters"]
    far = [
        f"{one.attention} ({100 * (one.operations['parameters'] / softmax - 1):+.0f} %)"
        for one in plan.rivals
        if one.operations and abs(one.operations["parameters"] / softmax - 1) > MOST_PARAMETER_DIFFERENCE
    ]
    if far:
        yield Finding(
            "parameters",
            "warning",
            f"the model's parameters differ from softmax's by more than 10 %: {listed(far)}; accuracy may "
            "come from size",
            "read their rows with that in mind, or compare at another width of theirs",
        )


def head_width(plan: PlanFacts) -> Iterator[Finding]:
    """Heads so narrow that feature maps and landmarks have no room; papers' results are at 64."""
    width = min(part["head_width"] for part in plan.swapped.values())
    if width < LEAST_HEAD_WIDTH:
        yield Finding(
            "head width",
            "warning",
            f"heads are {width} wide: low-rank and kernel mechanisms suffer below {LEAST_HEAD_WIDTH}, softmax less",
            "a wider model or fewer heads",
        )


def gain(plan: PlanFacts) -> Iterator[Finding]:
    """A swap that could gain nothing: at 13 and 50 tokens the quadratic part was 0.2 % and 1.6 % of the arithmetic."""
    share = plan.quadratic_share
    most = 1 / (1 - share)
    ratios = {"softmax's declared FLOPs over each model's": plan.bounds, "of inference": plan.inference_bounds}
    told = [
        f"{what}: {listed((f'{name} {bound:.2f} x' for name, bound in bounds.items()), 12)}"
        for what, bounds in ratios.items()
        if bounds
    ]
    yield Finding(
        "what a swap can gain",
        "warning" if most < EQUAL else "note",
        f"{_sizes(plan)} the quadratic part is {100 * share:.1f} % of {_whose(plan)} arithmetic, so a swap that keeps "
        f"softmax's projections gains {most:.2f} x at most; "
        + "; ".join([*told, "this bounds arithmetic, not time or memory"]),
        "more tokens: larger images or smaller patches" if most < EQUAL else "",
    )


def few_visible(plan: PlanFacts) -> Iterator[Finding]:
    """13 visible tokens, as in the first published comparison of this kind: nothing could be gained in the encoder."""
    encoder = plan.parts["encoder"]
    if len(plan.parts) == 1:
        return
    share = encoder["quadratic_flops"] / encoder["softmax_flops"]
    if 1 / (1 - share) < EQUAL:
        yield Finding(
            "few visible tokens",
            "warning",
            f"pre-training shows the encoder {encoder['tokens']} tokens of width {encoder['width']}, where the "
            f"quadratic part is {100 * share:.1f} % of its arithmetic: no mechanism can save a tenth of that before "
            "whole images are encoded",
            "more patches, or a lower model.options.mask_ratio, if the cost of pre-training is the question",
        )


def where(plan: PlanFacts) -> Iterator[Finding]:
    """Which parts of the model differ between two rows of the table."""
    if len(plan.parts) > 1:
        fixed = [f"the {name} has {plan.softmax.model[f'{name}_attention']} in all rows" for name in plan.fixed]
        yield Finding(
            "what is swapped",
            "note",
            "; ".join([f"each mechanism is in the {' and in the '.join(plan.swapped)}", *fixed]),
        )


def more_work(plan: PlanFacts) -> Iterator[Finding]:
    """An "efficient" mechanism that works more than softmax: "linformer" padded 13 tokens to 50."""
    softmax = plan.softmax.operations["attention_flops_per_image"]
    ratios = {
        one.attention: one.operations["attention_flops_per_image"] / softmax for one in plan.rivals if one.operations
    }
    dear = [f"{name} {ratio:.2f} x" for name, ratio in ratios.items() if ratio > 1]
    if dear:
        yield Finding(
            "more work than softmax",
            "warning",
            f"at this size the attention layers of these do more arithmetic than softmax's: {listed(dear)}",
            "smaller options, or more tokens",
        )


def launch_bound(plan: PlanFacts) -> Iterator[Finding]:
    """Times that count kernels: width 96 at batch 1 on an A100, where the sparse mechanisms came out slower."""
    depth = sum(part["depth"] for part in plan.parts.values())
    one_image = plan.softmax.operations["flops_per_image"] / depth
    bound = LAUNCH_BOUND_FLOPS.get(device_kind(plan.device), 0.0)
    if one_image * plan.batch_size < bound:
        yield Finding(
            "launch-bound",
            "warning",
            f"a block of this model at batch {plan.batch_size} does {one_image * plan.batch_size / 1e6:.3g} MFLOP: on "
            f"{plan.device} the time is that of starting kernels, and counts them",
            "a larger batch or model",
        )
    elif one_image < bound:
        yield Finding(
            "launch-bound",
            "note",
            f"latency at batch 1 counts kernels: a block does {one_image / 1e6:.3g} MFLOP for one image",
        )


def unfused(plan: PlanFacts) -> Iterator[Finding]:
    """Eager code raced against a fused kernel: says who wrote kernels, not which function is dear."""
    if device_kind(plan.device) == "cpu" or plan.softmax.kernel in ("eager", "explicit"):
        return
    eager = [one.attention for one in plan.rivals if one.kernel == "eager"]
    if eager:
        yield Finding(
            "unfused",
            "warning",
            f"softmax runs torch's fused kernel, these run one eager kernel after another: {listed(eager)}; a fused "
            "one of theirs would be faster",
            "hold them against the explicit softmax too, which is in the table",
        )


def copied_data(plan: PlanFacts) -> Iterator[Finding]:
    """Images that are not the published ones: compressed again, or fewer."""
    if plan.data.get("copied"):
        yield Finding(
            "copied data",
            "warning",
            f"the images of {plan.data.get('name')} were compressed again or are fewer than the published ones: no "
            "accuracy here may stand beside a published one",
            "the original files",
        )


def one_scale(plan: PlanFacts) -> Iterator[Finding]:
    """A winner at one size: the order of models changes with scale (Tay et al. 2022, arXiv 2207.10551)."""
    if plan.scales < 2:
        yield Finding(
            "one scale",
            "warning",
            "one size of model and image: the order may be another at a larger one",
            "repeat it at twice the width or four times the tokens before relying on it",
        )


def from_scratch(plan: PlanFacts) -> Iterator[Finding]:
    """Gaps that pre-training closes: training from scratch overestimates them (Amos et al. 2023, arXiv 2310.02980)."""
    if plan.init == "scratch":
        yield Finding(
            "from scratch only",
            "warning",
            "weights start at random: pre-training, even on the same images, mostly makes the gaps smaller",
            "read a gap as an upper bound",
        )


PLAN_RULES: tuple[PlanRule, ...] = (
    refused,
    second_change,
    seeds,
    tuning,
    where,
    gain,
    few_visible,
    more_work,
    parameters,
    head_width,
    launch_bound,
    unfused,
    copied_data,
    one_scale,
    from_scratch,
)


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
