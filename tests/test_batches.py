"""Batches and augmentation: every image in every epoch, and each change just what it says."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as published

from ltkd import batches as module
from ltkd.batches import (
    AUGMENTATIONS,
    Batches,
    autoaugment,
    channel_statistics,
    colour,
    crop,
    cutout,
    flip,
    resized_crop,
)
from ltkd.datasets import Split
from ltkd.mapped import MappedImages
from ltkd.mixing import Mixing


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
    for _ in Batches(split, 8, tuple(AUGMENTATIONS), Mixing("cutmix", share=1)).epoch():
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
        mixing = Mixing("cutmix" if name == "cutmix" else "none", share=1)
        augment = (name,) if name in AUGMENTATIONS else ()
        return next(Batches(split, 16, augment, mixing).epoch())

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


def test_resized_crop_shows_a_box_of_the_image():
    """Of an image whose colours say the place, the colours say which box was cut."""
    ramp = torch.linspace(0, 255, 128).expand(128, 128)
    image = torch.stack([ramp, ramp.T, torch.zeros(128, 128)])
    after = resized_crop(image.to(torch.uint8).repeat(600, 1, 1, 1)).float()
    columns, rows = after[:, 0].mean(1), after[:, 1].mean(2)  # (N, 128): from left, from top
    assert (columns.diff(dim=1) >= 0).all() and (rows.diff(dim=1) >= 0).all()
    assert (after[:, 2] == 0).all()
    width = (columns[:, -1] - columns[:, 0]) / 255
    height = (rows[:, -1] - rows[:, 0]) / 255
    area = width * height
    assert 0.3 < area.min() < 0.42 and area.max() > 0.95
    assert 0.6 < area.mean() < 0.72  # evenly drawn from 0.35 to 1, less what finds no room
    ratio = width / height
    assert 0.72 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.39
    place = (columns[:, 0] / 255) / (1 - width).clamp(min=0.02)
    assert place[width < 0.9].min() < 0.05 and place[width < 0.9].max() > 0.95


def test_resized_crop_of_everything_is_the_image():
    images = noise(5)
    whole = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]).repeat(5, 1, 1)
    assert torch.equal(module._sample(images, whole), images)


def test_colour_is_torchvisions_with_the_same_factors(monkeypatch):
    images = noise(7)
    drawn = torch.rand(3, 7, 1, 1)
    monkeypatch.setattr(module.torch, "rand", lambda *size: drawn)
    after = colour(images, chunk=3)
    bright, contrast, saturation = 1 + 0.4 * (2 * drawn.flatten(1) - 1)
    for i, image in enumerate(images.float() / 255):
        # torchvision cuts at black and white after every change, and here that is done once
        expected = image * bright[i]
        grey = published.rgb_to_grayscale(expected)
        expected = saturation[i] * expected + (1 - saturation[i]) * grey
        mean = published.rgb_to_grayscale(expected).mean()
        expected = (contrast[i] * expected + (1 - contrast[i]) * mean).clamp(0, 1)
        assert (after[i] - 255 * expected).abs().max() <= 1.01


def test_mapped_images_give_the_same_batches(tmp_path):
    images = noise(30, side=8).numpy()
    images.tofile(tmp_path / "map.images")
    rows = np.arange(30)[::-1]
    mapped = MappedImages(tmp_path / "map.images", rows, 8)
    epochs = []
    for pixels in (images[rows].copy(), mapped):
        torch.manual_seed(3)
        split = Split(pixels, np.arange(30), rows)
        batches = Batches(split, 8, ("resized_crop", "flip"), Mixing("cutmix"))
        epochs.append(list(batches.epoch(scale=0.5)))
    for first, second in zip(*epochs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert channel_statistics(mapped) == channel_statistics(images)


def test_cutout_greys_a_square_of_half_the_side():
    after = cutout(torch.zeros(500, 3, 32, 32, dtype=torch.uint8))
    grey = after == 128
    assert (grey | (after == 0)).all()
    assert (grey == grey[:, :1]).all()  # the same in all channels
    rows, columns = grey[:, 0].any(2).sum(1), grey[:, 0].any(1).sum(1)
    assert torch.equal(rows * columns, grey[:, 0].sum((1, 2)))  # a rectangle
    assert (rows.max(), columns.max()) == (16, 16)  # whole where it lies inside
    assert rows.min() >= 7  # at least half is inside, as the centre is


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
        return list(Batches(numbered(50), 12, ("flip",), Mixing("cutmix"), part=part).epoch())

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


def test_channel_statistics_count_every_image_once():
    """They are taken 8 MiB at a time: ten of these images."""
    images = np.zeros((25, 3, 512, 512), np.uint8)
    images[[9, 10, 19, 20, 24]] = 255
    mean, _ = channel_statistics(images)
    assert mean == pytest.approx([5 / 25] * 3)


def test_a_scale_below_1_makes_the_images_smaller():
    flat = numbered(20, side=8)
    for batch in Batches(flat, 10).epoch(scale=0.75):
        assert batch.images.shape == (10, 3, 6, 6)
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.labels)
