import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from eca_lab.data import (
    channel_statistics,
    load_dataset,
)
from eca_lab.data import shapes as source

SHAPES_FINGERPRINT = "6462b53e9691f3ca5c8ce92b45d64c50ec75076a5a36f5c4f2f62b6f682b65cc"


@pytest.fixture(scope="module")
def shapes():
    return load_dataset("shapes")


def test_shapes_are_the_same_in_every_process(shapes):
    assert shapes.fingerprint == SHAPES_FINGERPRINT
    code = "from eca_lab.data import load_dataset; print(load_dataset('shapes').fingerprint)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [SHAPES_FINGERPRINT]


def test_shapes_leave_global_random_numbers_alone():
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    source._render_split(10, seed=0)
    assert np.random.random() == expected  # noqa: NPY002


def test_shapes_are_balanced_and_in_full_range(shapes):
    assert shapes.train_images.shape == (5000, 3, 32, 32)
    assert shapes.test_images.shape == (2000, 3, 32, 32)
    assert shapes.train_images.dtype == shapes.test_images.dtype == torch.uint8
    assert shapes.train_labels.bincount().tolist() == [500] * 10
    assert shapes.test_labels.bincount().tolist() == [200] * 10
    assert shapes.classes == (
        *("arrow", "crescent", "cross", "disc", "frame"),
        *("heart", "ring", "square", "star", "triangle"),
    )
    assert (shapes.size, shapes.skipped, shapes.name) == (32, 0, "shapes")
    mean, std = channel_statistics(shapes.train_images)
    assert ((mean > 0.4) & (mean < 0.6)).all()
    assert ((std > 0.15) & (std < 0.3)).all()


def test_shapes_do_not_repeat_images(shapes):
    images = torch.cat([shapes.train_images, shapes.test_images]).numpy()
    assert len({image.tobytes() for image in images}) == 7000


def test_outlines_of_shapes():
    x = np.linspace(-1.2, 1.2, 601)[None, :]
    area = {name: (shape(x, -x.T) < 0).mean() * 2.4**2 for name, shape in source._SHAPES.items()}
    assert area["disc"] == pytest.approx(np.pi * 0.9**2, rel=0.02)
    assert area["ring"] == pytest.approx(np.pi * (0.96**2 - 0.48**2), rel=0.02)
    assert area["square"] == pytest.approx(1.6**2, rel=0.02)
    assert area["frame"] == pytest.approx(1.74**2 - 0.86**2, rel=0.02)
    assert area["triangle"] == pytest.approx(27**0.5 * 0.55**2, rel=0.02)
    assert area["cross"] == pytest.approx(2 * 2 * 0.64 - 0.64**2, rel=0.02)
    assert all(1 < value < 2.8 for value in area.values())
    hollow = [name for name, shape in source._SHAPES.items() if shape(0.0, 0.0) > 0]
    assert hollow == ["crescent", "frame", "ring"]
