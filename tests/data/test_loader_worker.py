"""What a spawned worker of a loader has to import before it can read clips: memory that each has for itself."""

import subprocess
import sys

from relo.images import _IMAGENET_DEVIATION, _IMAGENET_MEAN

HEAVY = ("lightning", "torchvision", "timm", "albumentations", "scipy", "torchmetrics", "matplotlib", "torch._dynamo")


def test_a_worker_imports_no_heavy_library_but_torch_and_opencv():
    script = (
        "import sys, relo.data.clip_dataset, relo.data.loader_worker\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []


def test_the_normalisation_is_that_of_timm():
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    assert (_IMAGENET_MEAN, _IMAGENET_DEVIATION) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
