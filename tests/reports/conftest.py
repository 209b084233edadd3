"""Records of a comparison that never was, to read reports from."""

import zlib

import numpy as np
import pytest

from saccade.record import Record

RESOLVED = {
    "softmax": 'softmax(bias=True, kernel="auto", qk_norm=False, qkv_bias=True, rope=False)',
    'softmax(kernel="explicit")': 'softmax(bias=True, kernel="explicit", qk_norm=False, qkv_bias=True, rope=False)',
}
MACHINE = {
    "processor": "AMD EPYC 9354",
    "cores": 2,
    "accelerator": None,
    "system": "Linux 6.1",
    "python": "3.11.7",
    "torch": "2.13.0",
    "saccade": "0.1.0",
    "commit": "abc",
    "load_1min": 0.1,
    "pressure_avg10": 0.0,
}
CONDITIONS = {
    "device": "cpu",
    "dtype": "fp32",
    "amp_dtype": None,
    "batch_size": 64,
    "threads": 1,
    "clock": "wall",
    "allocator": "default",
    "checkpointing": False,
    "compile": False,
    "environment": {},
}
DATA = {
    "name": "digits",
    "fingerprint": "f00d",
    "classes": 10,
    "images": {"train": 1077, "validation": 360, "test": 360},
    "img_size": [8, 8],
    "copied": False,
    "notes": [],
}
OPERATIONS = {
    "parameters": 28_298,
    "attention_parameters": 8_448,
    "flops_per_image": 4_000_000,
    "attention_flops_per_image": 1_600_000,
    "quadratic_share": 0.2529,
    "tokens": 65,
    "width": 32,
    "heads": 4,
    "head_width": 8,
    "depth": 2,
}


class Comparison:
    """Builds records one by one, or those of a whole comparison."""

    def about(self, attention):
        return {
            "attention": attention,
            "attention_resolved": RESOLVED.get(attention, attention if "(" in attention else f"{attention}(bias=True)"),
            "model": "vit_nano_patch1_8",
        }

    def recipe(self, attention, seed, lr):
        return {
            "model": {"name": "vit_nano_patch1_8", "attention": attention, "options": {}},
            "data": {"name": "digits"},
            "augment": {"crop_padding": 0},
            "train": {"lr": lr, "seed": seed, "epochs": 80, "batch_size": 64, "dtype": "fp32"},
        }

    def accuracy(self, attention, seed=0, right=None, *, percent=90.0, images=360, lr=1e-3, error=None, **changes):
        """A run; `right` says which test images, else the first `percent` of them."""
        right = np.arange(images) < images * percent / 100 if right is None else right
        values = {
            "test_top1_percent": 100 * float(right.mean()),
            "validation_top1_percent": 91.0,
            "test_correct": np.packbits(right).tobytes().hex(),
            "test_images": len(right),
            "images_seen": 86_016,
            "train_seconds": 12.5,
        }
        return Record(
            **{
                **self.about(attention),
                "kind": "accuracy",
                "values": {} if error else values,
                "conditions": {"device": "cpu", "threads": 1, "dtype": "fp32", "amp_dtype": None, "batch_size": 64},
                "machine": MACHINE,
                "data": None if error else DATA,
                "recipe": self.recipe(attention, seed, lr),
                "seed": seed,
                "error": error,
                **changes,
            }
        )

    def tuning(self, attention, lr, percent, *, error=None, **changes):
        values = {"validation_top1_percent": percent, "images_seen": 86_016, "train_seconds": 12.5}
        return Record(
            **{
                **self.about(attention),
                "kind": "tuning",
                "values": {} if error else values,
                "machine": MACHINE,
                "data": None if error else DATA,
                "recipe": self.recipe(attention, 1_000_000, lr),
                "seed": 1_000_000,
                "error": error,
                **changes,
            }
        )

    def operations(self, attention, **values):
        return Record(**self.about(attention), kind="operations", values={**OPERATIONS, **values}, machine=MACHINE)

    def seconds(self, attention, step=0.040, latency=0.002, inference=0.012, *, kernel="eager", **changes):
        noise = np.random.default_rng(zlib.crc32(attention.encode()))

        def repeats(center, times):
            return (center * noise.normal(1, 0.02, times)).tolist()

        values = {}
        for act, center in {"forward": inference, "step": step, "latency": latency, "inference": inference}.items():
            values[f"{act}_seconds"] = repeats(center, 7)
            values[f"warmup_{act}_seconds"] = repeats(2 * center, 4)
        return Record(
            **{
                **self.about(attention),
                "kind": "seconds",
                "values": values,
                "conditions": {**CONDITIONS, "inference_batch": 256, "kernel_run": kernel, "busy": False},
                "machine": MACHINE,
                "round": "2026-01-01T00:00:00",
                **changes,
            }
        )

    def memory(self, attention, peak_bytes=40_000_000, **changes):
        return Record(
            **{
                **self.about(attention),
                "kind": "memory",
                "values": {"peak_bytes": peak_bytes, "method": "VmHWM"},
                "conditions": CONDITIONS,
                "machine": MACHINE,
                **changes,
            }
        )

    def whole(self, accuracies, *, seeds=3, images=360, spread=0.004, costs=None, tuned=True):
        """Every record of a comparison of mechanisms with these accuracies (0..1) and step costs (softmax is 1)."""
        rng = np.random.default_rng(0)
        difficulty = rng.random(images)
        costs = {"softmax": 1.0, **(costs or {})}
        records = []
        for attention, accuracy in accuracies.items():
            if tuned:
                records += [self.tuning(attention, lr, 90.0 - gap) for lr, gap in ((3e-4, 2.0), (1e-3, 0.0), (3e-3, 1))]
            for seed in range(seeds):
                reached = accuracy + spread * rng.standard_normal()
                right = difficulty + 0.05 * rng.standard_normal(images) < reached
                records.append(self.accuracy(attention, seed, right))
            records.append(self.operations(attention, flops_per_image=round(4e6 * (costs.get(attention, 1) + 1) / 2)))
        for attention in [*accuracies, 'softmax(kernel="explicit")']:
            cost = costs.get(attention, 1.4 if "explicit" in attention else 1.0)
            kernel = "explicit" if "explicit" in attention else "sdpa" if "softmax" in attention else "eager"
            records.append(self.seconds(attention, 0.04 * cost, 0.002 * cost**0.5, 0.012 * cost, kernel=kernel))
            records.append(self.memory(attention, round(40e6 * cost**0.7)))
        return records


@pytest.fixture
def made():
    return Comparison()
