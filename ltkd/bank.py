"""What the teacher says of augmented images, kept in files: a large teacher is asked once."""

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from . import processes
from .files import Busy, claimed, shown, writing
from .networks import digest


class TeacherBank:
    """Patch logits of the teacher for every batch of `epochs` epochs, bfloat16, memory-mapped.

    The training loop repeats order and augmentation after `epochs` epochs, so the teacher is asked
    in the first ones only, and not at all by a second student of the same teacher, seed and
    schedule. An epoch takes images × patches × classes × 2 bytes on the disk; in memory only the
    batch in use.

    Parameters
    ----------
    teacher : takes uint8 (B, 3, S, S), gives patch logits (B, P, C)
    folder : where the files are, see `bank_folder`
    epochs : after how many epochs the batches come again
    batches : batches in an epoch
    """

    def __init__(
        self, teacher: Callable[[Tensor], Tensor], folder: Path, epochs: int, batches: int
    ):
        self.teacher, self.folder, self.epochs, self.batches = teacher, folder, epochs, batches
        self.stored: np.ndarray | None = None  # the epoch's file, where it is to be read
        self.part: BinaryIO | None = None  # where it is to be written
        self.sizes: set[int] = set()  # of images, in pixels, for which the room was said
        self.claim = ExitStack()  # closes it and gives up the right to write it

    def __call__(self, images: Tensor, epoch: int, index: int) -> Tensor:
        """The teacher's patch logits (B, P, C) for batch `index` of `epoch`, bfloat16."""
        name = f"{epoch % self.epochs:04}-{images.shape[-1]}px-{processes.rank()}.npy"
        file = self.folder / name
        if index == 0:
            self.stored = self._stored(file)
        if self.stored is not None:
            values = torch.from_numpy(np.array(self.stored[index])).view(torch.bfloat16)
            return values.to(images.device)
        said = self.teacher(images).bfloat16()
        with writing(file):
            self._store(file, index, said.cpu().view(torch.int16).numpy(), images.shape[-1])
        return said

    def _stored(self, file: Path) -> np.ndarray | None:
        try:
            return np.load(file, mmap_mode="r") if file.exists() else None
        except (OSError, ValueError, EOFError):  # cut short: the teacher is asked again
            return None

    def _store(self, file: Path, index: int, values: np.ndarray, side: int) -> None:
        """Write one batch; the file gets its name when the epoch is whole."""
        if index == 0:
            self._open(file, values)
            if side not in self.sizes:
                self.sizes.add(side)
                size = self.batches * values.nbytes * processes.count() / 2**20
                processes.say(
                    f"What the teacher says of images of {side} pixels takes {size:,.1f} MiB an "
                    f"epoch, for {self.epochs} epochs at most, in {shown(self.folder)}."
                )
        if self.part is None:
            return
        self.part.write(values.tobytes())
        if index == self.batches - 1:
            self.part.close()
            os.replace(self.part.name, file)
            self.claim.close()

    def _open(self, file: Path, values: np.ndarray) -> None:
        """Begin a file, or leave it to another student who writes the same just now."""
        self.claim.close()
        self.part = None
        try:
            self.claim.enter_context(claimed(file, "Keeping the teacher's outputs"))
        except Busy:
            return
        self.part = self.claim.enter_context(file.with_name(f".{file.name}.part").open("wb"))
        header = {"descr": "<i2", "fortran_order": False, "shape": (self.batches, *values.shape)}
        np.lib.format.write_array_header_1_0(self.part, header)


def bank_folder(parent: Path, teacher: nn.Module, identity: dict) -> Path:
    """The folder of outputs of this teacher on these batches: another teacher, another folder."""
    content = f"{digest(teacher)} {sorted(identity.items())!r}"
    return parent / f"teacher-outputs-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
