"""Mixing: pasted pixels, shares, who is pasted where, and local crops against the grid."""

import pytest
import torch

from ltkd.mixing import MIXES, Mixing, boxes, crop_patches, cutmix, local_crops


def noise(number: int = 16, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


def numbered(number: int, side: int = 8) -> torch.Tensor:
    """Images that are all of one value, their number."""
    return torch.arange(number)[:, None, None, None].expand(-1, 3, side, side).byte()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def mixed(images, labels=None, batch_size=4, rows=None, **options):
    labels = torch.arange(len(images)) if labels is None else labels
    rows = torch.arange(len(images)) if rows is None else rows
    return Mixing(**options)(rows, labels, batch_size, lambda places: images[places])


def test_pixels_come_from_two_images_and_the_share_is_exact():
    images, other = numbered(64, 16), torch.randperm(64)
    batch = cutmix(images, torch.arange(64), images[other], other)
    own, pasted = (v[:, None, None, None] for v in (batch.labels, batch.pasted_labels))
    assert ((batch.images == own) | (batch.images == pasted)).all()
    share = (batch.images[:, 0] == pasted[:, 0]).float().mean((1, 2))
    differ = batch.labels != batch.pasted_labels
    assert torch.equal(batch.pasted_share[differ], share[differ])
    assert batch.whole is batch.images
    assert (batch.corner == -1).all()


def test_a_box_is_pasted_at_the_same_place():
    images, donors = noise(32), noise(64)[32:]
    batch = cutmix(images, torch.arange(32), donors, torch.arange(32))
    assert ((batch.images == images) | (batch.images == donors)).all()


def test_a_box_by_hand():
    """Half the side around the centre of the image, and around a point right at its top."""
    centre, side = torch.tensor([[0.5, 0.125], [0.5, 0.75]]), torch.tensor([0.5, 0.5])
    found = boxes(8, 8, centre, side)
    rows, columns = found.any(2), found.any(1)
    assert torch.equal(found, rows[:, :, None] & columns[:, None, :])
    assert rows.int().tolist() == [[0, 0, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]]
    assert columns.int().tolist() == [[0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]


def test_boxes_cover_all_shares():
    images = torch.zeros(4000, 3, 16, 16, dtype=torch.uint8)
    share = cutmix(images, torch.arange(4000), images, torch.arange(4000)).pasted_share
    assert share.min() == 0
    assert share.max() > 0.9
    assert 0.3 < share.mean() < 0.5  # evenly drawn would be 0.5; what lies outside is lost


def test_batches_are_mixed_as_often_as_asked():
    images = noise(1200, 8)
    batch = mixed(images, kind="cutmix", share=0.3)
    some = (batch.pasted_share > 0).view(300, 4).any(1)
    assert 0.2 < some.float().mean() < 0.4
    assert torch.equal(batch.images.view(300, 4, -1)[~some], images.view(300, 4, -1)[~some])
    assert torch.equal(batch.pasted_labels // 4, batch.labels // 4)  # from the same batch
    alone = mixed(images)
    assert torch.equal(alone.images, images)
    assert torch.equal(alone.pasted_labels, alone.labels)


@pytest.mark.parametrize("kind", ["tail_cutmix", "tail_cutmix_prior"])
def test_tail_cutmix_pastes_every_class_as_often(kind):
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    rows = torch.randint(0, 100, (6000,))
    batch = mixed(noise(100, 8), labels, 4, rows, kind=kind, counts=labels.bincount())
    assert torch.equal(batch.labels, labels[rows])
    share = batch.pasted_labels.bincount() / 6000
    assert torch.allclose(share, torch.full((3,), 1 / 3), atol=0.03)


# a patch has 8 pixels; a schedule's small images, of 24, have 3 × 3
@pytest.mark.parametrize(("patch", "grid"), [(0, 4), (2, 4), (5, 4), (15, 4), (8, 3)])
def test_tail_patches_pastes_around_the_patch_of_the_largest_weight(patch, grid):
    side = 8 * grid

    def weights(images):
        assert (images >= 128).all()  # of the donors, that is of images that may be pasted
        found = torch.zeros(len(images), grid**2)
        found[:, patch] = 1
        return found

    images = torch.tensor([0] * 4 + [200] * 2000)[:, None, None, None].expand(-1, 3, side, side)
    images = images.byte()
    labels, rows = torch.tensor([0] * 4 + [1] * 2000), torch.arange(2000) % 4
    counts = torch.tensor([1e12, 1.0])  # class 0 is never drawn
    mixing = Mixing("tail_patches", counts, weights, share=1.0)
    batch = mixing(rows, labels, 4, lambda places: images[places])
    pasted = (batch.images[:, 0] == 200).float()
    small = (batch.pasted_share > 0) & (batch.pasted_share < 0.05)
    row, column = divmod(patch, grid)
    around = torch.zeros(side, side)
    reach = 4  # half the side of a small box: √0.05 · 32 / 2
    around[max(0, 8 * row - reach) : 8 * row + 8 + reach,
           max(0, 8 * column - reach) : 8 * column + 8 + reach] = 1  # fmt: skip
    assert small.sum() > 20
    assert (pasted[small] * (1 - around)).sum() == 0


def test_where_no_batch_is_mixed_no_teacher_is_asked():
    def weights(images):
        raise AssertionError

    images = noise(8)
    batch = mixed(images, kind="tail_patches", counts=torch.ones(8), patch_weights=weights, share=0)
    assert torch.equal(batch.images, images)
    assert (batch.pasted_share == 0).all()


def test_local_crops_show_a_quarter_of_the_image_at_the_corner():
    patches = torch.arange(16.0).view(4, 4)
    image = (10 * patches).repeat_interleave(8, 0).repeat_interleave(8, 1)  # patch p is 10 p
    images = image.expand(200, 3, 32, 32).byte()
    batch = local_crops(images, torch.zeros(200).long(), torch.arange(200) % 2 == 0)
    assert torch.equal(batch.whole, images)
    assert torch.equal(batch.images[1::2], images[1::2])
    assert (batch.corner[1::2] == -1).all()
    corners = {tuple(c) for c in batch.corner[::2].tolist()}
    assert corners == {(r, c) for r in range(3) for c in range(3)}
    for seen, (row, column) in zip(batch.images[::2], batch.corner[::2].tolist(), strict=True):
        four = 10 * patches[row : row + 2, column : column + 2]
        # the middles of the quarters, away from the borders that the enlargement blurs
        assert torch.equal(seen[0, 8::16, 8::16].float(), four)


def test_patches_of_a_crop_lie_over_the_whole_images_patches():
    whole = torch.arange(16.0).view(1, 16, 1).repeat(2, 1, 3)
    found = crop_patches(whole, torch.tensor([[1, 2], [-1, -1]]))
    rows = [[6, 6, 7, 7], [6, 6, 7, 7], [10, 10, 11, 11], [10, 10, 11, 11]]
    assert torch.equal(found[0, :, 1], torch.tensor(rows).float().flatten())
    assert torch.equal(found[1], whole[1])


def test_crops_of_an_odd_grid_stay_inside():
    whole = torch.arange(9.0).view(1, 9, 1)  # 3 × 3: a crop shows one patch
    assert crop_patches(whole, torch.tensor([[2, 1]])).flatten().tolist() == [7.0] * 9
    whole = torch.arange(49.0).view(1, 49, 1)  # 7 × 7: a crop shows 3 × 3
    found = crop_patches(whole, torch.tensor([[4, 4]])).view(7, 7)
    assert found[0].tolist() == [32.0] * 3 + [33.0] * 2 + [34.0] * 2
    assert found[-1, -1] == 48
    images = torch.arange(24).expand(40, 3, 24, 24).byte()  # a pixel is its column
    batch = local_crops(images, torch.zeros(40).long(), torch.ones(40).bool(), grid=3)
    assert set(batch.corner.flatten().tolist()) == {0, 1, 2}
    for seen, column in zip(batch.images, batch.corner[:, 1].tolist(), strict=True):
        assert (seen.min(), seen.max()) == (8 * column, 8 * column + 7)


@pytest.mark.parametrize("kind", MIXES)
def test_the_seed_decides(kind):
    def once(seed):
        torch.manual_seed(seed)
        options = {"counts": torch.ones(32), "patch_weights": lambda i: torch.ones(len(i), 16)}
        return mixed(noise(32), kind=kind, **options)

    first, again, other = once(3), once(3), once(8)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert kind == "none" or not torch.equal(first.images, other.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mixup"}, "Unknown mixing 'mixup'; choose one of none, cutmix"),
        ({"kind": "tail_cutmix"}, "needs `counts`"),
        ({"kind": "tail_patches", "counts": torch.ones(2)}, "needs `patch_weights`"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**options)


def test_the_grid_of_local_crops_is_that_of_the_images_side():
    sides = []
    images = torch.zeros(8, 3, 24, 24, dtype=torch.uint8)
    mixed(images, kind="local_crops", grid=lambda side: sides.append(side) or 3)
    assert sides == [24]


def test_whole_images_and_local_crops_are_in_one_batch():
    """Apart, the crops' BatchNorm statistics would spoil the running ones, which tests go by."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (320, 3, 32, 32), dtype=torch.uint8)
    batch = mixed(images, batch_size=32, kind="local_crops")
    cropped = (batch.corner[:, 0] >= 0).view(10, 32).sum(1)  # of 32: 16 ± 3
    assert (cropped > 4).all() and (cropped < 28).all()
