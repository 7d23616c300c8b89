"""Batches and augmentation: every image in every epoch, and each change just what it says."""

import numpy as np
import pytest
import torch

from ltkd import batches as module
from ltkd.batches import (
    AUGMENTATIONS,
    Batches,
    autoaugment,
    channel_statistics,
    crop,
    cutmix,
    cutout,
    flip,
    mix,
)
from ltkd.datasets import Split


def numbered(number: int, side: int = 8) -> Split:
    """Images that are all of one value, their number, which is their label too."""
    labels = np.arange(number)
    images = np.broadcast_to(labels[:, None, None, None], (number, 3, side, side))
    return Split(images.astype(np.uint8).copy(), labels, labels)


def noise(number: int = 16, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(("number", "size"), [(20, 5), (23, 5), (7, 7), (3, 8), (200, 64)])
def test_every_image_in_every_epoch(number, size):
    batches = Batches(numbered(number), size)
    orders = []
    for _ in range(2):
        epoch = list(batches.epoch())
        assert len(epoch) == len(batches) == -(-number // size)
        assert {len(batch.labels) for batch in epoch} == {size}
        labels = torch.cat([batch.labels for batch in epoch])
        assert sorted(labels[:number].tolist()) == list(range(number))
        assert labels[number:].tolist() == (labels[:number].tolist() * 4)[: len(labels) - number]
        orders.append(labels.tolist())
    assert orders[0] != orders[1]


def test_images_keep_their_labels():
    for batch in Batches(numbered(30), 8, ("crop", "flip")).epoch():
        assert batch.images.amax((1, 2, 3)).tolist() == batch.labels.tolist()  # crop adds only 0
        assert batch.pasted_share.tolist() == [0] * 8
        assert batch.images.dtype == torch.uint8


def test_nothing_is_changed_without_augmentation_or_in_the_data():
    split = numbered(30)
    before = split.images.copy()
    for batch in Batches(split, 8).epoch():
        assert torch.equal(batch.images, torch.from_numpy(before)[batch.labels])
    for _ in Batches(split, 8, tuple(AUGMENTATIONS), cutmix=1).epoch():
        pass
    assert np.array_equal(split.images, before)


def test_small_blocks_give_whole_batches(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 3 * 8 * 8 * 5 * 2)  # two batches of five
    epoch = list(Batches(numbered(33), 5).epoch())
    assert [len(batch.labels) for batch in epoch] == [5] * 7
    assert sorted(torch.cat([batch.labels for batch in epoch]).tolist()[:33]) == list(range(33))


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="Unknown augmentation blur, mirror; choose from crop"):
        Batches(numbered(4), 2, ("mirror", "crop", "blur"))


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "cutmix"])
def test_the_seed_decides(name):
    def epoch(seed):
        torch.manual_seed(seed)
        split = Split(noise().numpy(), np.arange(16), np.arange(16))
        augment, share = ((), 1.0) if name == "cutmix" else ((name,), 0.0)
        return next(Batches(split, 16, augment, share).epoch())

    first, again, other = epoch(3), epoch(3), epoch(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_keep_type_and_shape(name):
    for images in (noise(5), noise(40), noise(3, side=64)):
        before = images.clone()
        after = AUGMENTATIONS[name](images)
        assert (after.shape, after.dtype) == (images.shape, torch.uint8)
        assert torch.equal(images, before)


def test_crop_shifts_by_up_to_an_eighth():
    images = noise(400, side=16) // 2 + 1  # no 0 in the images
    shifts = set()
    for before, after in zip(images, crop(images), strict=True):
        found = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)
                 if torch.equal(after, shifted(before, dy, dx))]  # fmt: skip
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) == 25  # each shift occurs


def shifted(image: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """The image moved down by dy and right by dx; black comes in."""
    result, side = torch.zeros_like(image), image.shape[-1]
    rows = slice(max(0, dy), min(side, side + dy))
    columns = slice(max(0, dx), min(side, side + dx))
    from_rows = slice(rows.start - dy, rows.stop - dy)
    from_columns = slice(columns.start - dx, columns.stop - dx)
    result[:, rows, columns] = image[:, from_rows, from_columns]
    return result


def test_flip_mirrors_half_of_the_images():
    images = noise(400)
    after = flip(images)
    same = (after == images).flatten(1).all(1)
    mirrored = (after == images.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_cutout_greys_a_square_of_half_the_side():
    after = cutout(torch.zeros(500, 3, 32, 32, dtype=torch.uint8))
    grey = after == 128
    assert (grey | (after == 0)).all()
    assert (grey == grey[:, :1]).all()  # the same in all channels
    rows, columns = grey[:, 0].any(2).sum(1), grey[:, 0].any(1).sum(1)
    assert torch.equal(rows * columns, grey[:, 0].sum((1, 2)))  # a rectangle
    assert (rows.max(), columns.max()) == (16, 16)  # whole where it lies inside
    assert rows.min() >= 7  # at least half is inside, as the centre is


def test_cutmix_pixels_come_from_two_images_and_the_share_is_exact():
    images, labels = numbered(64, 16).images, np.arange(64)
    batch = cutmix(torch.from_numpy(images), torch.from_numpy(labels))
    own = batch.labels[:, None, None, None]
    pasted = batch.pasted_labels[:, None, None, None]
    assert batch.labels.tolist() == labels.tolist()
    assert sorted(batch.pasted_labels.tolist()) == labels.tolist()
    assert ((batch.images == own) | (batch.images == pasted)).all()
    share = (batch.images[:, 0] == pasted[:, 0]).float().mean((1, 2))
    mixed = batch.labels != batch.pasted_labels
    assert torch.equal(batch.pasted_share[mixed], share[mixed])


def test_cutmix_pastes_from_the_same_place():
    images = noise(32)
    batch = cutmix(images, torch.arange(32))
    from_other = batch.images == images[batch.pasted_labels]
    assert ((batch.images == images) | from_other).all()


def test_cutmix_covers_all_shares():
    images = torch.zeros(4000, 3, 16, 16, dtype=torch.uint8)
    share = cutmix(images, torch.arange(4000)).pasted_share
    assert share.min() == 0
    assert share.max() > 0.9
    assert 0.3 < share.mean() < 0.5  # evenly drawn would be 0.5; what lies outside is lost


def test_mix_happens_as_often_as_asked():
    images, labels = noise(1200, 8), torch.arange(1200)
    batch = mix(images, labels, 0.3, batch_size=4)
    mixed = (batch.pasted_share > 0).view(300, 4).any(1)
    assert 0.2 < mixed.float().mean() < 0.4
    assert torch.equal(batch.images.view(300, 4, -1)[~mixed], images.view(300, 4, -1)[~mixed])
    assert torch.equal(batch.pasted_labels // 4, labels // 4)  # from the same batch
    plain = mix(images, labels, 0.0, batch_size=4)
    assert plain.images is images
    assert torch.equal(plain.pasted_labels, labels)


def test_autoaugment_changes_images_and_leaves_none_out():
    images = noise(50)
    after = autoaugment(images)
    changed = (after != images).flatten(1).any(1)
    assert changed.float().mean() > 0.5
    flat = torch.full((50, 3, 32, 32), 200, dtype=torch.uint8)
    assert (autoaugment(flat).flatten(1).amax(1) > 0).all()


def test_processes_share_a_batch_out():
    def epoch(part):
        torch.manual_seed(7)
        return list(Batches(numbered(50), 12, ("flip",), 0.5, part=part).epoch())

    whole, parts = epoch((0, 1)), [epoch((rank, 3)) for rank in range(3)]
    for index, batch in enumerate(whole):
        for rank in range(3):
            for value, own in zip(batch, parts[rank][index], strict=True):
                assert torch.equal(value[rank::3], own)
    assert len(parts[0][0].labels) == 4


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="A batch of 10 cannot be shared by 3 processes"):
        Batches(numbered(20), 10, part=(0, 3))


def test_channel_statistics_are_those_of_numpy():
    images = noise(20).numpy()
    images[:, 1] //= 3
    mean, std = channel_statistics(images)
    scaled = images.astype(float) / 255
    assert mean == pytest.approx(scaled.mean((0, 2, 3)).tolist())
    assert std == pytest.approx(scaled.std((0, 2, 3)).tolist())
