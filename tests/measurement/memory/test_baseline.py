"""What stays in a process is measured there, for every mechanism, and a class that does not work costs nobody his."""

import json
import subprocess
import sys

import pytest

ASKED = """
import json, sys
from dataclasses import replace
from saccade.measurement.memory.baseline import baselines_here
from saccade.measurement.subject import Subject
softmax = Subject(model="mae_micro_patch4_32")
print(json.dumps(baselines_here([softmax, *(replace(softmax, attention=name) for name in sys.argv[1:])])))
"""


def stays(*names):
    done = subprocess.run([sys.executable, "-c", ASKED, *names], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_kernels_of_a_mechanism_stay_whoever_else_has_run_and_what_makes_no_sense_leaves_nothing():
    softmax, convolving, refused, visual, again = stays("lambda", "nystrom(landmarks=900)", "visual", "lambda")
    assert 100e6 < softmax[1] < softmax[0] < 1e9
    assert refused == softmax
    # oneDNN's convolutions.
    assert all(more - plain > 2e6 for more, plain in zip(convolving, softmax, strict=True))
    assert all(more - plain > 2e6 for more, plain in zip(visual, softmax, strict=True))
    assert again == pytest.approx(convolving, abs=1e6)
    assert stays("visual")[1] == pytest.approx(visual, abs=2e6)
