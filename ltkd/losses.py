"""Class losses for long-tailed data, and their head/tail decoupling.

Every function takes logits (B, C) and labels (B,) and returns one loss per image, (B,). `counts`
are the training images per class, (C,).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from . import processes
from .options import check_choice


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """−log softmax(z)_y, per image (B,).

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([0])).exp()
    tensor([4.])
    """
    return F.cross_entropy(logits, labels, reduction="none")


def focal(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """−(1 − p_y)^γ · log p_y, per image (B,): easy images count less (Lin et al. 2017).

    >>> logits, labels = torch.zeros(1, 2), torch.tensor([0])
    >>> focal(logits, labels) / cross_entropy(logits, labels)
    tensor([0.2500])
    """
    loss = cross_entropy(logits, labels)
    wrong = -torch.expm1(-loss)  # 1 − p_y
    # above 0, of which a power has no slope
    return wrong.clamp(min=torch.finfo(wrong.dtype).tiny) ** gamma * loss


def class_balanced_weights(
    counts: Tensor, beta: float = 0.9999, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(1 − β) / (1 − β^n_c), scaled to mean 1, (C,) (Cui et al. 2019).

    1 − β^n over 1 − β is the effective number of images: β = 0 weighs all classes alike, and as
    β approaches 1 the weights approach 1 / n_c.

    >>> class_balanced_weights(torch.tensor([10, 1000]), beta=0)
    tensor([1., 1.])
    """
    # 1 − β^n by expm1: float32 would lose four digits of it for small n
    log_beta = math.log(beta) if beta else -math.inf
    weights = (1 - beta) / -torch.expm1(counts.to(dtype) * log_beta)
    return weights / weights.mean()


def ldam(
    logits: Tensor, labels: Tensor, counts: Tensor, max_margin: float = 0.5, scale: float = 30.0
) -> Tensor:
    """Label-distribution-aware margins, per image (B,) (Cao et al. 2019).

    Cross-entropy after the true class's logit is lowered by scale · Δ_y, with Δ_c ∝ n_c^(−1/4)
    and the largest Δ equal to `max_margin`. The logits are those of a cosine classifier, already
    multiplied by `scale`.
    """
    margins = counts.to(logits.dtype) ** -0.25
    margins = max_margin * margins / margins.max()
    lowered = F.one_hot(labels, logits.shape[1]) * margins[labels, None]
    return cross_entropy(logits - scale * lowered, labels)


def logit_adjustment(logits: Tensor, labels: Tensor, counts: Tensor, tau: float = 1.0) -> Tensor:
    """Cross-entropy of z + τ · log π, π the class shares, per image (B,) (Menon et al. 2021).

    >>> logit_adjustment(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([3, 1])).exp()
    tensor([4.])
    """
    return cross_entropy(logits + tau * log_prior(counts, logits.dtype), labels)


def balanced_softmax(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Logit adjustment at τ = 1, per image (B,) (Ren et al. 2020)."""
    return logit_adjustment(logits, labels, counts, tau=1.0)


def log_prior(counts: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """log(n_c / N), (C,)."""
    counts = counts.to(torch.promote_types(dtype, torch.float32))  # float16 ends at 65,504
    return torch.log(counts / counts.sum()).to(dtype)


def decouple(
    losses: Tensor, labels: Tensor, head: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean loss of the head images and of the tail images, both scalars.

    Each is averaged over its own images, so that the few tail images of a batch are not drowned.
    A batch without any gives 0 there. `head` is bool (C,); `weights` (B,) makes the means weighted.

    >>> losses, labels = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 1])
    >>> decouple(losses, labels, head=torch.tensor([True, False]))
    (tensor(1.5000), tensor(6.))
    """
    weights = torch.ones_like(losses) if weights is None else weights
    in_head, in_tail = weights * head[labels], weights * ~head[labels]
    return (
        (losses * in_head).sum() / processes.mean(in_head.sum()).clamp(min=1e-6),
        (losses * in_tail).sum() / processes.mean(in_tail.sum()).clamp(min=1e-6),
    )


# name → loss per image of (logits, labels, counts)
CLASS_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda z, y, n: cross_entropy(z, y),
    "focal": lambda z, y, n: focal(z, y),
    "class_balanced": lambda z, y, n: (
        class_balanced_weights(n, dtype=z.dtype)[y] * cross_entropy(z, y)
    ),
    "ldam_drw": ldam,
    "logit_adjustment": logit_adjustment,
    "balanced_softmax": balanced_softmax,
}


def _losses(name: str, logits: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The losses of every part's labels (B,) with its counts (C,), one after the other.

    Raises ValueError where a loss, which may be one of your own, is not one number an image.
    """
    found = [CLASS_LOSSES[name](logits, labels, counts) for labels, counts in parts]
    for losses in found:
        if losses.shape != logits.shape[:1]:
            raise ValueError(
                f"The class loss {name!r} gives a tensor of shape {tuple(losses.shape)} for "
                f"{len(logits)} images: it must give one loss an image, and no mean over them."
            )
    return torch.cat(found)


class ClassLoss:
    """A class loss as named terms: {"class": …}, or decoupled {"head": …, "tail": …}.

    Parameters
    ----------
    name : a key of CLASS_LOSSES, for all images or (decoupled) for head images
    counts : training images per class, (C,)
    tail_name : the loss of tail images; given, the two groups are decoupled,
        L_cls = L_head + λ_T · L_tail
    head : bool (C,), needed when decoupled
    tail_weight : λ_T
    pasted_counts : (C,), in place of `counts` for labels of pasted images. CMO (Park et al. 2022)
        has `counts` there, too; but images drawn evenly over the classes do not have the prior
        that Balanced Softmax then corrects, and the head loses what the tail gains by it. Ones
        are the even prior (compare UniMix, Xu et al. 2021)
    drw_start : "ldam_drw" weighs classes from this share of the training on (deferred
        re-weighting, Cao et al. 2019)

    >>> loss = ClassLoss("balanced_softmax", torch.tensor([3, 1]))
    >>> {name: round(term.exp().item(), 3) for name, term in
    ...  loss(torch.zeros(1, 2), torch.tensor([1])).items()}
    {'class': 4.0}
    """

    def __init__(
        self,
        name: str,
        counts: Tensor,
        tail_name: str | None = None,
        head: Tensor | None = None,
        tail_weight: float = 1.0,
        drw_start: float = 0.8,
        pasted_counts: Tensor | None = None,
    ):
        for wanted in (name, tail_name or name):
            check_choice("class loss", wanted, CLASS_LOSSES)
        if not counts.all():
            raise ValueError("Every class needs a training image: leave out the classes without.")
        if tail_name and head is None:
            raise ValueError("A decoupled class loss needs `head`, bool (C,).")
        self.name, self.tail_name, self.counts, self.head = name, tail_name, counts, head
        self.tail_weight, self.drw_start = tail_weight, drw_start
        self.pasted_counts = counts if pasted_counts is None else pasted_counts
        self.drw_weights = class_balanced_weights(counts)

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        pasted_labels: Tensor | None = None,
        pasted_share: Tensor | None = None,
        done: float = 0.0,
    ) -> dict[str, Tensor]:
        """Return the named terms, scalars.

        Parameters
        ----------
        logits : (B, C)
        labels : (B,)
        pasted_labels, pasted_share : (B,) each; an image mixed by CutMix counts as
            1 − share of an image of its own class and share of one of the pasted class
        done : share of the training that is done, 0..1
        """
        weights = torch.ones(len(labels), device=logits.device)
        parts = [(labels, self.counts)]
        if pasted_labels is not None:
            assert pasted_share is not None  # the two come together
            parts.append((pasted_labels, self.pasted_counts))
            labels = torch.cat([labels, pasted_labels])
            weights = torch.cat([1 - pasted_share, pasted_share])
        losses = _losses(self.name, logits, parts)
        own = self._deferred(self.name, weights, labels, done)
        if not self.tail_name or self.head is None:
            return {"class": (own * losses).sum() / processes.mean(own.sum())}
        head, _ = decouple(losses, labels, self.head, own)
        losses = _losses(self.tail_name, logits, parts)
        own = self._deferred(self.tail_name, weights, labels, done)
        _, tail = decouple(losses, labels, self.head, own)
        return {"head": head, "tail": self.tail_weight * tail}

    def _deferred(self, name: str, weights: Tensor, labels: Tensor, done: float) -> Tensor:
        """Weights of a mean, so that the batch (or group) keeps its overall weight."""
        deferred = name == "ldam_drw" and done >= self.drw_start
        return weights * self.drw_weights[labels] if deferred else weights
