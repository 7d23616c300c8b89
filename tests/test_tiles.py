"""The data set with a known answer, and whether the patch weight finds it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ltkd.evaluation import predict
from ltkd.experiments import Experiment
from ltkd.supervision import distillation_loss
from ltkd.tiles import auroc, tiles
from ltkd.trials import trial


def test_own_tiles_are_where_the_mask_says():
    made = tiles(classes=4, largest=8, imbalance_factor=4, specific=3)
    images, labels = made.data.test.images.astype(float), made.data.test.labels
    grid = (
        images.reshape(-1, 3, 4, 8, 4, 8).transpose(0, 2, 4, 1, 3, 5).reshape(len(images), 16, -1)
    )
    assert (made.specific.sum(1) == 3).all()

    def nearest(some, others):
        return np.sqrt(((some[:, None] - others[None]) ** 2).mean(-1)).min(1)

    own = [grid[labels == c][made.specific[labels == c]] for c in range(4)]
    pool = grid[~made.specific]
    # noise of 12 on both: about 17 apart where the tile is the same, far more where it is not
    for label, some in enumerate(own):
        others = np.concatenate([o for c, o in enumerate(own) if c != label])
        assert nearest(some, others).min() > 35 and nearest(some, pool).min() > 35
    shared = [grid[labels == c][~made.specific[labels == c]] for c in (0, 3)]
    assert nearest(*shared).max() < 35  # head and tail draw from the same pool


def test_the_same_seed_makes_the_same_images():
    first, second, other = tiles(seed=1), tiles(seed=1), tiles(seed=2)
    assert np.array_equal(first.data.train.images, second.data.train.images)
    assert not np.array_equal(first.data.train.images, other.data.train.images)


def test_auroc_counts_pairs():
    scores = np.array([[0.1, 0.4], [0.35, 0.8]])
    truth = np.array([[False, False], [True, True]])
    assert auroc(scores, truth) == 0.75  # three of the four pairs are in order


@pytest.fixture(scope="module")
def taught():
    """A cross-entropy teacher of the tiles, which never saw the mask."""
    made = tiles()
    experiment = Experiment.named("digits-lt")
    plan = replace(experiment.schedule, epochs=15, augment=())
    experiment = replace(experiment, schedule=plan)
    teacher = trial(experiment, made.data)
    patches = torch.from_numpy(predict(teacher, made.data.test.images, patches=True))
    return made, experiment, teacher, patches


def weights_of(taught, recipe):
    made, experiment, teacher, patches = taught
    loss = distillation_loss(replace(experiment, distillation=recipe), made.data, teacher)
    return loss.patch_weights(patches).numpy()


def test_the_weight_finds_shared_tiles(taught):
    found = weights_of(taught, "patch_informativeness")
    assert auroc(found, taught[0].specific) >= 0.9


def test_inverted_and_shuffled_weights_do_not(taught):
    specific = taught[0].specific
    torch.manual_seed(0)
    assert auroc(weights_of(taught, "inverted"), specific) < 0.2
    assert auroc(weights_of(taught, "shuffled"), specific) < 0.75
