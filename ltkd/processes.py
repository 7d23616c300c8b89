"""What several processes share when Accelerate or torchrun starts more than one.

Every process computes its part of every batch. So that N processes give what one gives with the
same batch, whatever is averaged over a batch is averaged over all processes: BatchNorm's
statistics, the weights of a weighted mean, the logged losses. With one process these functions do
nothing.
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    import accelerate


def start() -> "accelerate.PartialState":
    """Join the processes that were started together; alone, do nothing.

    Raises ValueError where this machine has fewer GPUs than processes.
    """
    from accelerate import PartialState  # here, because it takes most of a second

    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if here > torch.cuda.device_count() > 0:
        raise ValueError(
            f"{here} processes were started and {torch.cuda.device_count()} GPUs are here: start "
            f"as many processes as GPUs."
        )
    # Accelerate does not see several processes on a machine without GPU unless told so, and those
    # of a Mac's GPU cannot train together
    kind = torch.accelerator.current_accelerator()
    cpu = not torch.accelerator.is_available() or (here > 1 and kind == torch.device("mps"))
    return PartialState(cpu=cpu, timeout=timedelta(hours=12))  # one may build data for so long


def count() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The place of this process among them, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_main() -> bool:
    """True in the one process that prints and writes files."""
    return int(os.environ.get("RANK", 0)) == 0


def say(text: str) -> None:
    """Print in the main process only."""
    if is_main():
        print(text, flush=True)


def mean(value: Tensor) -> Tensor:
    """The mean of `value` over all processes, without gradient; one process: `value` itself."""
    if count() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / count()


def lost(error: BaseException) -> bool:
    """Whether the error says that another process has ended or cannot be reached."""
    known = ("connection", "gloo", "nccl", "closed by peer", "timed out")
    said = str(error).lower()
    return count() > 1 and (isinstance(error, dist.DistError) or any(k in said for k in known))


def wait() -> None:
    """Go on when every process has come here."""
    if count() > 1:
        dist.barrier()


def gather(rows: list) -> list[list]:
    """The rows of every process, in the order of the processes."""
    if count() == 1:
        return [rows]
    gathered: list = [None] * count()
    dist.all_gather_object(gathered, rows)
    return gathered


class _Sum(torch.autograd.Function):
    """The sum over all processes. Every process's loss depends on it, so gradients add up, too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm over the images of all processes, on any device.

    torch's own SyncBatchNorm does the same on GPUs and refuses CPUs.
    """

    num_batches_tracked: Tensor  # none of these is None, as they can be in torch's
    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or count() == 1:
            return super().forward(x)
        number = x.numel() / x.shape[1] * count()
        average = _Sum.apply(x.sum((0, 2, 3), dtype=self.weight.dtype)) / number
        centred = x - average.view(1, -1, 1, 1)
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / number
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(average, self.momentum)
            self.running_var.lerp_(variance * number / (number - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def share_batch_norm(network: nn.Module) -> nn.Module:
    """Make every BatchNorm of `network` count the images of all processes."""
    if count() == 1:
        return network
    if next(network.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm  # the same parameters, buffers and names
    return network
