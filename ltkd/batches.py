"""Batches and augmentation on whole tensors: the data set is bytes in memory, on the device.

One epoch's images are drawn and augmented together, so that no step waits for the processor.
Everything is drawn from torch's global generator, which the training loop seeds at every epoch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from .datasets import Split

BLOCK_BYTES = 64 * 2**20  # images augmented at a time; bounds the memory for large images


class Batch(NamedTuple):
    """Images as bytes, and what they show.

    With CutMix an image holds a share `pasted_share` of another, whose label is `pasted_labels`.
    """

    images: Tensor  # uint8 (B, 3, H, W)
    labels: Tensor  # int64 (B,)
    pasted_labels: Tensor  # int64 (B,)
    pasted_share: Tensor  # float (B,), 0 where nothing is pasted


class Batches:
    """One epoch after another of augmented batches of `split`, resident on `device`.

    All batches have the same size: the last one is filled up with images from the start of the
    epoch's order. With several processes each gets its own part of every batch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        augment: tuple[str, ...] = (),
        cutmix: float = 0.0,
        device: torch.device | str = "cpu",
        part: tuple[int, int] = (0, 1),
    ):
        unknown = set(augment) - set(AUGMENTATIONS)
        if unknown:
            raise ValueError(
                f"Unknown augmentation {', '.join(sorted(unknown))}; choose from "
                f"{', '.join(AUGMENTATIONS)}."
            )
        if batch_size % part[1]:
            raise ValueError(f"A batch of {batch_size} cannot be shared by {part[1]} processes.")
        self.images = torch.from_numpy(split.images).to(device)  # uint8 (N, 3, H, W)
        self.labels = torch.from_numpy(split.labels).to(device)  # int64 (N,)
        self.batch_size, self.augment, self.cutmix, self.part = batch_size, augment, cutmix, part

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, scale: float = 1.0) -> Iterator[Batch]:
        """Yield one epoch's batches in a new order, newly augmented.

        With a `scale` below 1 the images are made smaller, to that share of their side.
        """
        order = torch.randperm(len(self.labels))
        filled = torch.cat([order] * (self.batch_size // len(order) + 2))
        rows = filled[: len(self) * self.batch_size].to(self.images.device)
        per_block = max(1, BLOCK_BYTES // (self.images[0].numel() * self.batch_size))
        for block in rows.split(per_block * self.batch_size):
            images, labels = self.images[block], self.labels[block]
            for name in self.augment:
                images = AUGMENTATIONS[name](images)
            if scale != 1:
                images = v2.functional.resize(images, [round(scale * images.shape[-1])] * 2)
            mixed = mix(images, labels, self.cutmix, self.batch_size)
            for start in range(0, len(block), self.batch_size):
                part = slice(start + self.part[0], start + self.batch_size, self.part[1])
                yield Batch(*(value[part] for value in mixed))


def mix(images: Tensor, labels: Tensor, share: float, batch_size: int) -> Batch:
    """Mix each batch of the block by CutMix with probability `share`."""
    if share:
        return cutmix(images, labels, batch_size, share)
    return Batch(images, labels, labels, torch.zeros(len(labels), device=labels.device))


def cutmix(
    images: Tensor, labels: Tensor, batch_size: int | None = None, share: float = 1.0
) -> Batch:
    """Paste a box of another image of its batch into every image (Yun et al. 2019).

    The box covers a share drawn evenly from 0 to 1, less what lies outside the image. With
    `share` below 1 the other batches stay as they are. All is drawn at once, so that a GPU waits
    once for a block and not for every batch.
    """
    number, _, height, width = images.shape
    batch_size = batch_size or number
    starts = range(0, number, batch_size)
    other = torch.cat([start + torch.randperm(batch_size) for start in starts]).to(images.device)
    chosen = (torch.rand(len(starts)) < share).repeat_interleave(batch_size)
    side = torch.rand(number).sqrt() * chosen
    rows = _span(height, side * height)
    columns = _span(width, side * width)
    inside = (rows[:, :, None] & columns[:, None, :]).to(images.device)  # (B, H, W)
    mixed = torch.where(inside[:, None], images[other], images)
    return Batch(mixed, labels, labels[other], inside.float().mean((1, 2)))


def _span(length: int, size: Tensor) -> Tensor:
    """True in an interval of `size` pixels around a random centre: (B, length)."""
    centre = torch.rand(len(size)) * length
    position = torch.arange(length) + 0.5
    return (position - centre[:, None]).abs() < size[:, None] / 2


def crop(images: Tensor) -> Tensor:
    """Shift every image by up to an eighth of its side, filling with black."""
    pad = images.shape[-1] // 8
    height, width = images.shape[-2:]
    windows = F.pad(images, [pad] * 4).unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = torch.randint(0, 2 * pad + 1, (2, len(images))).to(images.device)
    return windows[torch.arange(len(images), device=images.device), :, rows, columns]


def flip(images: Tensor) -> Tensor:
    """Mirror half of the images, left to right."""
    chosen = (torch.rand(len(images)) < 0.5).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def cutout(images: Tensor) -> Tensor:
    """Grey out a square of half the side around a random centre (DeVries and Taylor 2017)."""
    side = torch.full((len(images),), images.shape[-1] / 2)
    rows, columns = _span(images.shape[-2], side), _span(images.shape[-1], side)
    inside = (rows[:, :, None] & columns[:, None, :]).to(images.device)
    return images.masked_fill(inside[:, None], 128)


def autoaugment(images: Tensor, chunk: int = 16) -> Tensor:
    """The CIFAR-10 policy of AutoAugment (Cubuk et al. 2019), by torchvision.

    torchvision draws once per call, so images that are far apart in the epoch share a draw.
    """
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    augmented = torch.empty_like(images)
    calls = -(-len(images) // chunk)
    for start in range(calls):
        augmented[start::calls] = policy(images[start::calls])
    return augmented


AUGMENTATIONS = {"crop": crop, "flip": flip, "autoaugment": autoaugment, "cutout": cutout}


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, in units of the full range 0..1.

    >>> channel_statistics(np.full((1, 3, 2, 2), 255, np.uint8))
    ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(3):
        share = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        mean = float(share @ levels)
        means.append(mean)
        deviations.append(float((share @ (levels - mean) ** 2) ** 0.5))
    return means, deviations
