"""What stays in a process is measured there, for every mechanism, and a class that does not work costs nobody his."""

import json
import subprocess
import sys

import pytest

ASKED = """
import json
from dataclasses import replace
from saccade.measurement.memory.baseline import baselines_here
from saccade.measurement.subject import Subject
softmax = Subject(model="mae_micro_patch4_32")
names = ["lambda", "nystrom(landmarks=900)", "softmax"]
print(json.dumps(baselines_here([softmax, *(replace(softmax, attention=name) for name in names)])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_kernels_of_a_mechanism_stay_and_what_makes_no_sense_leaves_nothing():
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    softmax, convolving, refused, again = json.loads(done.stdout)
    assert 100e6 < softmax[1] < softmax[0] < 1e9
    # oneDNN's convolutions.
    assert all(more - plain > 2e6 for more, plain in zip(convolving, softmax, strict=True))
    assert refused == softmax
    assert all(abs(more - plain) < 2e6 for more, plain in zip(again, softmax, strict=True))
