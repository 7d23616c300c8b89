"""Residual networks that classify every patch; an image's logits are the mean of its patches'."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.stride, self.added = stride, channels - channels_in
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.stride > 1 or self.added:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return F.relu(out + x)


class PatchNetwork(nn.Module):
    """What all networks here share: they normalise images themselves and return patch logits.

    A subclass gives `features`, (B, 3, S, S) → (B, F, h, w), and calls `classify_by` once it knows
    F. `settings` rebuild the network, see `network_from`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: dict):
        super().__init__()
        if settings["classifier"] not in ("linear", "cosine"):
            raise ValueError(f"The classifier is linear or cosine, not {settings['classifier']!r}.")
        for name in ("grid", "stem_stride"):
            if type(settings[name]) is not int or settings[name] < 1:
                raise ValueError(f"A network's {name} is 1, 2, 3 …, not {settings[name]!r}.")
        self.settings, self.grid = settings, settings["grid"]
        self.cosine, self.scale = settings["classifier"] == "cosine", settings["scale"]
        mean, std = (255 * torch.tensor(settings[s]).view(1, 3, 1, 1) for s in ("mean", "std"))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std.clamp(min=255e-3))

    def classify_by(self, channels: int) -> None:
        """Add the linear classifier of features with so many channels."""
        self.classifier = nn.Linear(channels, self.settings["classes"], bias=not self.cosine)

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) → feature maps (B, F, h, w)."""
        raise NotImplementedError

    def cells(self, side: int) -> int:
        """How many patches there are along a feature map's side: up to `grid`, all of one size."""
        return next(g for g in range(min(self.grid, side), 0, -1) if side % g == 0)

    def forward(self, images: Tensor) -> Tensor:
        """Square images (B, 3, S, S) → patch logits (B, P, C), P = `cells(side)`²."""
        x = (images - self.mean) / self.std
        x = self.features(x.contiguous(memory_format=torch.channels_last))
        height, side = x.shape[-2:]
        if height != side:
            raise ValueError(f"Images must be square; this feature map is {height} × {side}.")
        x = F.avg_pool2d(x, side // self.cells(side))  # (B, F, G, G)
        features = x.flatten(2).transpose(1, 2)  # (B, P, F)
        if not self.cosine:
            return self.classifier(features)
        # One length for the whole image keeps the image's cosine the mean of its patches'.
        length = features.mean(1, keepdim=True).norm(dim=2, keepdim=True).clamp(min=1e-6)
        return self.scale * F.linear(features / length, F.normalize(self.classifier.weight))


class ResNet(PatchNetwork):
    """The CIFAR ResNet of He et al. (2016) that returns patch logits.

    It takes images as they are stored, uint8 or float in 0..255, and normalises them itself.

    Parameters
    ----------
    classes : number of classes C
    depth : 6n + 2 layers; 32 has 464,154 parameters at 10 classes
    width : channels of the first of three stages (16 in the literature)
    grid : the last feature map is pooled to grid × grid patches; where its side is no multiple of
        `grid` (training on smaller images), to the next smaller number that divides it
    classifier : "linear", or "cosine": weights and feature both scaled to length 1, and the
        result multiplied by `scale`, as LDAM (Cao et al. 2019) wants it
    stem_stride : stride of the first convolution: 2 for 64-pixel images, 4 for 128, 7 for 224
    mean, std : per channel, in units of the full range 0..1

    >>> network = ResNet(10)
    >>> sum(p.numel() for p in network.parameters())
    464154
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 16, 10])
    """

    def __init__(
        self,
        classes: int,
        depth: int = 32,
        width: int = 16,
        grid: int = 4,
        classifier: str = "linear",
        scale: float = 30.0,
        stem_stride: int = 1,
        mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        std: tuple[float, ...] = (0.25, 0.25, 0.25),
    ):
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"The depth of this ResNet is 6n + 2 (8, 14, 20, 32, …), not {depth}.")
        if width < 1:
            raise ValueError(f"The width of a ResNet is at least 1 channel, not {width}.")
        super().__init__({
            "classes": classes, "depth": depth, "width": width, "grid": grid,
            "classifier": classifier, "scale": scale, "stem_stride": stem_stride,
            "mean": list(mean), "std": list(std),
        })  # fmt: skip
        # no pixel is skipped: 3 × 3 at strides 1 and 2, 7 × 7 at stride 4
        kernel = max(3, 2 * stem_stride - 1)
        self.stem = nn.Conv2d(3, width, kernel, stem_stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks, channels = [], width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.classify_by(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) → feature maps (B, 4 · width, h, w)."""
        return self.blocks(F.relu(self.norm(self.stem(x))))


class Ensemble(PatchNetwork):
    """Several networks of one shape as one: the mean of their patch logits, (B, P, C).

    Deep ensembles (Lakshminarayanan et al. 2017) average probabilities. A mean of logits keeps the
    image's logits the mean of its patches'. Raises ValueError where the networks are fewer than
    two, or of different shapes.

    >>> one, other = (ResNet(3, depth=8).eval() for _ in range(2))
    >>> image = torch.zeros(1, 3, 32, 32)
    >>> torch.allclose(Ensemble([one, other])(image), (one(image) + other(image)) / 2)
    True
    """

    def __init__(self, members: Sequence[PatchNetwork]):
        if len(members) < 2:
            raise ValueError(f"An ensemble has two members or more, not {len(members)}.")
        first, *others = (member.settings for member in members)
        if any(settings != first for settings in others):
            raise ValueError("The members of an ensemble have one shape; these have several.")
        super().__init__(first | {"members": len(members)})
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Square images (B, 3, S, S) → patch logits (B, P, C)."""
        return torch.stack([member(images).float() for member in self.members]).mean(0)


def image_logits(patch_logits: Tensor) -> Tensor:
    """Patch logits (B, P, C) → the image's logits (B, C).

    The mean: average pooling and the linear classifier commute, so this is exactly what the
    classifier says of the pooled feature.
    """
    return patch_logits.mean(1)


def digest(network: nn.Module) -> str:
    """A short text that tells these weights from any others."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]
