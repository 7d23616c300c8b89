"""What a training image is made of: itself, a piece of another pasted into it, or a part of it.

Mixing is drawn for a whole block of batches at once, so that a GPU waits once for a block and not
for every batch. Everything is drawn from torch's global generator.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .options import check_choice

SHARE = 0.5  # of the batches that are mixed; of the images, with local crops
OWN_PRIOR = "tail_cutmix_prior"
MIXES = ("none", "cutmix", "tail_cutmix", OWN_PRIOR, "tail_patches", "local_crops")


class Batch(NamedTuple):
    """Images as bytes, and what they show.

    With CutMix an image holds a share `pasted_share` of another, whose label is `pasted_labels`.
    With local crops `images` are parts of `whole`, at `corner` of the grid of patches.
    """

    images: Tensor  # uint8 (B, 3, H, W)
    labels: Tensor  # int64 (B,)
    pasted_labels: Tensor  # int64 (B,)
    pasted_share: Tensor  # float (B,), 0 where nothing is pasted
    whole: Tensor  # uint8 (B, 3, H, W): what the teacher sees
    corner: Tensor  # int64 (B, 2), row and column of the crop's first patch; −1 where not cropped


def plain(images: Tensor, labels: Tensor) -> Batch:
    """A batch (or a block of batches) that is not mixed."""
    nothing = torch.zeros(len(labels), device=labels.device)
    corner = torch.full((len(labels), 2), -1, device=labels.device)
    return Batch(images, labels, labels, nothing, images, corner)


class Mixing:
    """How training images are mixed: a kind out of MIXES.

    "cutmix" pastes a box of another image of the batch into every image, at the same place (Yun et
    al. 2019). "tail_cutmix" pastes images drawn evenly over the classes, so mostly tail on head
    (after CMO, Park et al. 2022). "tail_cutmix_prior" does the same, and tells the loss of the
    labels: see losses.ClassLoss. "tail_patches" pastes them, too, with the box around a patch drawn
    by `patch_weights`. "local_crops" shows the student a quarter of the image (of an odd grid of
    patches, less), enlarged, and the teacher the whole (after PBSD, Xuan and Zhang 2024).

    Parameters
    ----------
    kind : one of MIXES
    counts : training images per class, (C,), needed by the kinds "tail…"
    patch_weights : uint8 images (B, 3, H, W) → weights (B, P), needed by "tail_patches"
    share : of the batches that are mixed. Local crops are drawn image by image: the BatchNorm
        statistics of batches of crops alone would not fit whole images
    grid : side of the images → patches per side, for "local_crops"; a schedule's small images may
        have fewer patches than its others
    """

    def __init__(
        self,
        kind: str = "none",
        counts: Tensor | None = None,
        patch_weights: Callable[[Tensor], Tensor] | None = None,
        share: float = SHARE,
        grid: Callable[[int], int] = lambda side: 4,
    ):
        check_choice("mixing", kind, MIXES)
        if kind.startswith("tail") and counts is None:
            raise ValueError(f"The mixing {kind!r} needs `counts`, (C,).")
        if kind == "tail_patches" and patch_weights is None:
            raise ValueError("The mixing 'tail_patches' needs `patch_weights`.")
        self.kind, self.counts, self.patch_weights = kind, counts, patch_weights
        self.share, self.grid = share, grid

    def __call__(
        self, rows: Tensor, labels: Tensor, batch_size: int, draw: Callable[[Tensor], Tensor]
    ) -> Batch:
        """Mix one block of batches.

        Parameters
        ----------
        rows : the block's places in the training set, (B,)
        labels : of all training images, (N,)
        draw : gives the augmented images of some rows
        """
        images, own = draw(rows), labels[rows]
        if self.kind == "none":
            return plain(images, own)
        if self.kind == "local_crops":
            chosen = (torch.rand(len(rows)) < self.share).to(rows.device)
            return local_crops(images, own, chosen, self.grid(images.shape[-1]))
        chosen = torch.rand(len(rows) // batch_size) < self.share
        chosen = chosen.repeat_interleave(batch_size).to(rows.device)
        if self.kind == "cutmix":
            other = _within_batches(len(rows), batch_size).to(rows.device)
            return cutmix(images, own, images[other], own[other], chosen)
        assert self.counts is not None  # see __init__
        evenly = 1 / self.counts[labels.cpu()]  # class-balanced: every class as likely
        other = torch.multinomial(evenly, len(rows), replacement=True).to(rows.device)
        donors = draw(other)
        weights = self._weights(donors, chosen) if self.kind == "tail_patches" else None
        return cutmix(images, own, donors, labels[other], chosen, weights)

    def _weights(self, donors: Tensor, chosen: Tensor) -> Tensor:
        """The patch weights of the donors, (B, P); the teacher is spared those not chosen."""
        if not chosen.any():
            return torch.ones(len(donors), 1)
        assert self.patch_weights is not None  # see __init__
        found = self.patch_weights(donors[chosen]).cpu()
        weights = torch.ones(len(donors), found.shape[1])
        weights[chosen.cpu()] = found
        return weights


def _within_batches(number: int, batch_size: int) -> Tensor:
    """For every image another (or the same) of its batch: (number,)."""
    starts = range(0, number, batch_size)
    return torch.cat([start + torch.randperm(batch_size) for start in starts])


def cutmix(
    images: Tensor,
    labels: Tensor,
    donors: Tensor,
    donor_labels: Tensor,
    chosen: Tensor | None = None,
    weights: Tensor | None = None,
) -> Batch:
    """Paste a box of every donor into its image, at the same place (Yun et al. 2019).

    The box covers a share drawn evenly from 0 to 1, less what lies outside the image. Its centre
    lies anywhere or, with `weights` (B, P), in a patch drawn by them. Images that are not `chosen`,
    bool (B,), stay as they are.
    """
    number, _, height, width = images.shape
    side = torch.rand(number).sqrt()
    if chosen is not None:
        side = side * chosen.cpu()
    centre = torch.rand(2, number)
    if weights is not None:
        grid = round(weights.shape[1] ** 0.5)
        patch = torch.multinomial(weights.cpu(), 1)[:, 0]
        centre = (torch.stack([patch // grid, patch % grid]) + centre) / grid
    inside = boxes(height, width, centre, side).to(images.device)  # (B, H, W)
    mixed = torch.where(inside[:, None], donors, images)
    share = inside.float().mean((1, 2))
    return plain(mixed, labels)._replace(pasted_labels=donor_labels, pasted_share=share)


def boxes(height: int, width: int, centre: Tensor, side: Tensor) -> Tensor:
    """True inside a box per image: (B, height, width).

    `centre` (2, B), row and column, and `side` (B,) are shares of the image's own sides.
    """
    rows = _span(height, centre[0], side)
    columns = _span(width, centre[1], side)
    return rows[:, :, None] & columns[:, None, :]


def _span(length: int, centre: Tensor, side: Tensor) -> Tensor:
    """True within side · length pixels around the centre: (B, length)."""
    position = torch.arange(length) + 0.5
    return (position - length * centre[:, None]).abs() < length * side[:, None] / 2


def local_crops(images: Tensor, labels: Tensor, chosen: Tensor, grid: int = 4) -> Batch:
    """Show a quarter of every chosen image, cut along the grid of patches and enlarged.

    >>> images, labels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2).long()
    >>> batch = local_crops(images, labels, chosen=torch.tensor([True, False]))
    >>> batch.images.shape, batch.corner[1].tolist()
    (torch.Size([2, 3, 32, 32]), [-1, -1])
    """
    side, half = images.shape[-1], _crop_side(grid)
    corner = torch.randint(0, grid - half + 1, (len(images), 2)).to(images.device)
    step = side // grid
    windows = images.unfold(2, half * step, step).unfold(3, half * step, step)
    parts = windows[torch.arange(len(images), device=images.device), :, corner[:, 0], corner[:, 1]]
    enlarged = F.interpolate(parts.float(), (side, side), mode="bilinear").round().byte()
    seen = torch.where(chosen[:, None, None, None], enlarged, images)
    corner = corner.masked_fill(~chosen[:, None], -1)
    return plain(seen, labels)._replace(whole=images, corner=corner)


def _crop_side(grid: int) -> int:
    """Patches along the side of a local crop: half of the grid's."""
    return max(1, grid // 2)


def crop_patches(patches: Tensor, corner: Tensor) -> Tensor:
    """The patches of the whole image that a local crop shows, each as often as it is enlarged.

    `patches` (B, P, C) are of the whole image, `corner` (B, 2) as in Batch. The result (B, P, C)
    lies over the crop's own patches. Its mean is the mean over the crop, where half the grid
    divides the grid; of a grid of 7 the crop's three rows come three, two and two times.

    >>> patches = torch.arange(4.0)[None, :, None]  # a grid of 2 × 2: a crop shows one patch
    >>> crop_patches(patches, torch.tensor([[1, 0]])).flatten()
    tensor([2., 2., 2., 2.])
    """
    grid = round(patches.shape[1] ** 0.5)
    half = _crop_side(grid)
    offsets = torch.arange(grid, device=patches.device) * half // grid
    rows, columns = (corner[:, axis, None].clamp(min=0) + offsets for axis in (0, 1))  # (B, G)
    places = (grid * rows[:, :, None] + columns[:, None, :]).flatten(1)  # (B, P)
    cropped = patches.gather(1, places[..., None].expand_as(patches))
    return torch.where(corner[:, :1, None] < 0, patches, cropped)
