"""How long a training will take, measured on a few steps before it starts."""

import time

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .networks import image_logits
from .schedules import SMALL, Schedule

STEPS = 3


def training_seconds(
    network: nn.Module,
    teacher: nn.Module | None,
    schedule: Schedule,
    images: int,
    image_size: int,
    accelerator: Accelerator,
) -> float:
    """Seconds that `schedule` takes over so many images of `image_size` pixels, roughly.

    The fastest of a few steps on random pixels: forward and backward, and the teacher's forward.
    Augmentation, the losses and the optimiser's own work are left out, which is some percent.
    `network` is left with gradients of zero and with changed running means: give a fresh one.
    """
    device, size = accelerator.device, min(schedule.batch_size, max(2, images))
    pixels = torch.randint(0, 256, (size, 3, image_size, image_size), dtype=torch.uint8)
    pixels = pixels.to(device)
    network = network.to(device).to(memory_format=torch.channels_last).train()
    seconds = min(_step(network, teacher, pixels, accelerator) for _ in range(STEPS))
    network.zero_grad()
    steps = schedule.epochs * -(-images // schedule.batch_size) * schedule.batch_size / size
    return seconds * steps * (1 - schedule.small * (1 - SMALL**2))


def _step(
    network: nn.Module, teacher: nn.Module | None, pixels: Tensor, accelerator: Accelerator
) -> float:
    synchronise()
    begin = time.perf_counter()
    with accelerator.autocast():
        if teacher is not None:
            with torch.no_grad():
                teacher(pixels)
        loss = image_logits(network(pixels)).float().square().mean()
    loss.backward()
    synchronise()
    return time.perf_counter() - begin


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spoken(seconds: float) -> str:
    """A duration as people say it.

    >>> [spoken(s) for s in (20, 80, 600, 9000)]
    ['less than a minute', 'about a minute', 'about 10 minutes', 'about 2.5 hours']
    """
    if seconds < 60:
        return "less than a minute"
    if seconds < 90:
        return "about a minute"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"
