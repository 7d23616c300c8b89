"""Batches and augmentation on whole tensors: the data set is bytes in memory, on the device.

One epoch's images are drawn and augmented together, so that no step waits for the processor.
Everything is drawn from torch's global generator, which the training loop seeds at every epoch.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .datasets import Split
from .mapped import MappedImages
from .mixing import Batch, Mixing, boxes
from .sources import Images

BLOCK_BYTES = 64 * 2**20  # images augmented at a time; bounds the memory for large images


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
        mixing: Mixing | None = None,
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
        self.device = torch.device(device)
        self.images = _resident(split.images, self.device)  # uint8 (N, 3, H, W)
        self.labels = torch.from_numpy(split.labels).to(device)  # int64 (N,)
        self.batch_size, self.augment, self.part = batch_size, augment, part
        self.mixing = mixing or Mixing()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, scale: float = 1.0) -> Iterator[Batch]:
        """Yield one epoch's batches in a new order, newly augmented.

        With a `scale` below 1 the images are made smaller, to that share of their side.
        """
        order = torch.randperm(len(self.labels))
        filled = torch.cat([order] * (self.batch_size // len(order) + 2))
        rows = filled[: len(self) * self.batch_size].to(self.device)
        per_block = max(1, BLOCK_BYTES // (math.prod(self.images.shape[1:]) * self.batch_size))
        for block in rows.split(per_block * self.batch_size):
            mixed = self.mixing(
                block, self.labels, self.batch_size, lambda places: self._drawn(places, scale)
            )
            for start in range(0, len(block), self.batch_size):
                part = slice(start + self.part[0], start + self.batch_size, self.part[1])
                yield Batch(*(value[part] for value in mixed))

    def _drawn(self, rows: Tensor, scale: float) -> Tensor:
        """The images of `rows`, augmented and scaled."""
        images = torch.as_tensor(self.images[rows])
        for name in self.augment:
            images = AUGMENTATIONS[name](images)
        if scale != 1:
            from torchvision.transforms.v2.functional import resize  # takes seconds to import

            images = resize(images, [round(scale * images.shape[-1])] * 2)
        return images


def _resident(images: Images, device: torch.device) -> Tensor | MappedImages:
    """The images on the device; on the CPU, mapped ones stay in their file."""
    if not isinstance(images, MappedImages):
        return torch.from_numpy(images).to(device)
    if device.type == "cpu":
        return images
    resident = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for rows in np.array_split(np.arange(len(images)), 1 + images.nbytes // BLOCK_BYTES):
        resident[rows[0] : rows[-1] + 1] = torch.from_numpy(images[rows]).to(device)
    return resident


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


def resized_crop(images: Tensor, smallest: float = 0.35, chunk: int = 256) -> Tensor:
    """Cut a box out of every image and enlarge it to the whole (Szegedy et al. 2015).

    The box covers a share of the area drawn evenly from `smallest` to 1, with sides in a ratio of
    3:4 to 4:3 as far as the image has room. `chunk` images at a time are floats.
    """
    number = len(images)
    area = smallest + (1 - smallest) * torch.rand(number)
    ratio = torch.exp(math.log(4 / 3) * (2 * torch.rand(number) - 1))
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)  # (N, 2)
    shift = (1 - sides) * (2 * torch.rand(number, 2) - 1)  # of the centre, in half sides
    boxes = torch.cat([torch.diag_embed(sides), shift[:, :, None]], 2).to(images.device)
    parts = zip(images.split(chunk), boxes.split(chunk), strict=True)
    return torch.cat([_sample(part, box) for part, box in parts])


def _sample(images: Tensor, boxes: Tensor) -> Tensor:
    """What lies in the boxes (N, 2, 3), as affine_grid takes them, at the size of the images."""
    grid = F.affine_grid(boxes, list(images.shape), align_corners=False)
    sampled = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return sampled.round_().to(torch.uint8)


def colour(images: Tensor, strength: float = 0.4, chunk: int = 256) -> Tensor:
    """Change brightness, contrast and saturation of every image by up to 40 %, each at random."""
    factors = 1 + strength * (2 * torch.rand(3, len(images), 1, 1) - 1)
    parts = zip(images.split(chunk), factors.to(images.device).split(chunk, dim=1), strict=True)
    return torch.cat([_recoloured(part, *own) for part, own in parts])


def _recoloured(images: Tensor, bright: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Each factor is (N, 1, 1). Grey is the luma of ITU-R BT.601, as in torchvision.

    The three changes in turn are one affine map of each image's colours.
    """
    luma = torch.tensor([0.299, 0.587, 0.114], device=images.device)
    pixels = images.flatten(2).float()  # (N, 3, H · W)
    grey = luma.expand(3, 3)  # takes a colour to its grey
    colours = saturation * torch.eye(3, device=images.device) + (1 - saturation) * grey
    mean = (pixels.mean(2) @ luma).view(-1, 1, 1)  # saturation leaves it as it is
    changed = torch.baddbmm((1 - contrast) * bright * mean, contrast * bright * colours, pixels)
    return changed.round_().clamp_(0, 255).to(torch.uint8).view_as(images)


def cutout(images: Tensor) -> Tensor:
    """Grey out a square of half the side around a random centre (DeVries and Taylor 2017)."""
    number, _, height, width = images.shape
    inside = boxes(height, width, torch.rand(2, number), torch.full((number,), 0.5))
    return images.masked_fill(inside[:, None].to(images.device), 128)


def autoaugment(images: Tensor, chunk: int = 16) -> Tensor:
    """The CIFAR-10 policy of AutoAugment (Cubuk et al. 2019), by torchvision.

    torchvision draws once per call, so images that are far apart in the epoch share a draw.
    """
    from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy  # takes seconds to import

    policy = AutoAugment(AutoAugmentPolicy.CIFAR10)
    augmented = torch.empty_like(images)
    calls = -(-len(images) // chunk)
    for start in range(calls):
        augmented[start::calls] = policy(images[start::calls])
    return augmented


AUGMENTATIONS = {
    "crop": crop,
    "resized_crop": resized_crop,
    "flip": flip,
    "colour": colour,
    "autoaugment": autoaugment,
    "cutout": cutout,
}


def channel_statistics(images: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, in units of the full range 0..1.

    >>> channel_statistics(np.full((1, 3, 2, 2), 255, np.uint8))
    ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """
    levels, counts = np.arange(256) / 255, np.zeros((3, 256))
    step = max(1, 2**23 // images[0].size) if len(images) else 1  # bincount takes 8 bytes a pixel
    for start in range(0, len(images), step):
        some = images[start : start + step]
        for channel in range(3):
            counts[channel] += np.bincount(some[:, channel].ravel(), minlength=256)
    shares = counts / counts.sum(1, keepdims=True)
    means = shares @ levels
    deviations = [(s @ (levels - m) ** 2) ** 0.5 for s, m in zip(shares, means, strict=True)]
    return means.tolist(), [float(d) for d in deviations]
