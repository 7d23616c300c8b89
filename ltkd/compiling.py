"""torch.compile where it works, and one line where it does not."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from . import processes
from .places import home


def compiled(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function that computes what `network` does, compiled at its first call.

    What is compiled is kept in data/built/compiled, so that a second run starts at once. Where
    nothing can be compiled (no C++ compiler, Windows) one line says so and the network is computed
    as it is: the same results, slower.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home() / "data" / "built" / "compiled"))
    current = torch.compile(network, dynamic=False)

    def call(images: Tensor) -> Tensor:
        nonlocal current
        try:
            return current(images)
        except Exception as error:  # compilers fail in many ways
            if current is network or processes.lost(error):
                raise
            current = network
            reason = str(error).strip().partition("\n")[0]
            processes.say(f"torch.compile does not work here ({reason}): training without it.")
            return network(images)

    return call
