"""What a student learns from its teacher: the named recipes behind one interface.

A recipe says which loss stands at image level and which at patch level, and how patches are
weighed. A table of ablations is a loop over RECIPES.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from . import distillation
from .experiments import Experiment
from .longtail import class_groups
from .losses import class_balanced_weights, log_prior
from .networks import image_logits
from .options import check_choice

PATCH_BYTES = 16 * 2**20  # of patch logits whose losses are computed at a time

CHOICES = {
    "image": (None, "kd", "dkd", "bkd", "dive", "ltkd", "decoupled"),
    "patch": (None, "kd", "decoupled"),
    "weights": ("uniform", "informativeness", "ambiguity"),
    "control": (None, "shuffled", "inverted"),
}
OF_DECOUPLED = ("alpha", "beta_head", "beta_tail", "head_temperature", "tail_temperature")
OF_PATCHES = ("weights", "control", "patch_weight")


@dataclass(frozen=True)
class Recipe:
    """How a student is distilled: a loss at image level, one at patch level, or both.

    The choices of the first four fields are in CHOICES. Patches are weighed by
    distillation.patch_weights. `calibrated`: the class prior is taken out of the teacher's logits
    first (the patch weights always do so). The fields in OF_DECOUPLED are for that loss alone.

    Raises ValueError for an unknown choice, and for a field that its losses do not have: those of
    OF_PATCHES need a patch loss, those of OF_DECOUPLED a decoupled one.
    """

    image: str | None = None
    patch: str | None = None
    weights: str = "uniform"
    control: str | None = None
    calibrated: bool = True
    image_weight: float = 1.0
    patch_weight: float = 1.0
    alpha: float = 1.0
    beta_head: float = 1.0
    beta_tail: float = 1.0
    temperature: float = 2.0
    head_temperature: float | None = None
    tail_temperature: float | None = None

    def __post_init__(self):
        for field, choices in CHOICES.items():
            check_choice(f"{field} of a recipe", getattr(self, field), choices)
        changed = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        decoupled = "decoupled" in (self.image, self.patch)
        for names, present, missing in (
            (OF_DECOUPLED, decoupled, "image or patch to 'decoupled', the loss that has it"),
            (OF_PATCHES, self.patch, "patch, the loss whose patches are weighed"),
        ):
            idle = [name for name in changed if name in names]
            if idle and not present:
                raise ValueError(
                    f"{', '.join(idle)} of a recipe would change nothing: set {missing}, "
                    "or leave it out."
                )

    @property
    def active(self) -> bool:
        """Whether there is anything to learn from the teacher."""
        return bool(self.image or self.patch)


_BOTH = Recipe("decoupled", "decoupled", "informativeness", image_weight=0.3, patch_weight=0.1)

# The published baselines take the teacher as it is.
RECIPES = {
    "none": Recipe(),
    "kd": Recipe("kd", calibrated=False),
    "dkd": Recipe("dkd", calibrated=False, temperature=4.0),
    "bkd": Recipe("bkd", calibrated=False),
    "dive": Recipe("dive", calibrated=False),
    "ltkd": Recipe("ltkd", calibrated=False),
    "calibrated_kd": Recipe("kd"),
    "decoupled": Recipe("decoupled"),
    "patch_kd": Recipe(patch="kd"),
    "patch_decoupled": Recipe(patch="decoupled"),
    "patch_informativeness": Recipe(patch="decoupled", weights="informativeness"),
    "patch_ambiguity": Recipe(patch="decoupled", weights="ambiguity"),
    "image_and_patch": _BOTH,
    "uniform": replace(_BOTH, weights="uniform"),
    "shuffled": replace(_BOTH, control="shuffled"),
    "inverted": replace(_BOTH, control="inverted"),
}


def recipe_named(name: str) -> Recipe:
    """Return the recipe of that name; raise ValueError, listing the names, if unknown."""
    check_choice("distillation", name, RECIPES)
    return RECIPES[name]


class DistillationLoss:
    """The distillation of a recipe as named terms, to be added up.

    Parameters
    ----------
    recipe : a key of RECIPES, or a Recipe
    counts : training images per class, (C,)
    head : bool (C,)
    teacher_bias : (C,), what the class prior added to the teacher's logits (log π for a
        cross-entropy teacher, 0 for a Balanced Softmax one). Calibrated recipes and the patch
        weights subtract it.
    mean_posterior : (C,), the class-balanced mean posterior of the teacher's patches, needed by
        the weights "informativeness"

    >>> loss = DistillationLoss("kd", torch.tensor([9, 1]), torch.tensor([True, False]))
    >>> patches = torch.zeros(2, 4, 2)
    >>> loss(patches, patches, torch.tensor([0, 1]))
    {'kd': tensor(0.)}
    """

    def __init__(
        self,
        recipe: str | Recipe,
        counts: Tensor,
        head: Tensor,
        teacher_bias: Tensor | None = None,
        mean_posterior: Tensor | None = None,
    ):
        recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
        if recipe.weights == "informativeness" and mean_posterior is None:
            raise ValueError("The weights 'informativeness' need `mean_posterior`, (C,).")
        self.recipe, self.head = recipe, head
        self.bias = (
            torch.zeros(len(counts), device=head.device) if teacher_bias is None else teacher_bias
        )
        self.mean_posterior = mean_posterior
        self.class_weights = class_balanced_weights(counts).to(head.device)
        groups = class_groups(counts.cpu().numpy())
        self.thirds = [
            torch.from_numpy(groups[g]).to(head.device) for g in ("top", "middle", "bottom")
        ]

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the terms, scalars, for patch logits (B, P, C) and labels (B,).

        No gradient reaches the teacher.
        """
        teacher, recipe = teacher.detach(), self.recipe
        terms: dict[str, Tensor] = {}
        if recipe.image:
            target = self._target(image_logits(teacher))
            values = self._image_terms(image_logits(student), target, labels)
            terms |= {name: recipe.image_weight * v.mean() for name, v in values.items()}
        if recipe.patch:
            if student.shape != teacher.shape:
                raise ValueError(
                    f"The student gives logits of {student.shape[1]} patches an image and the "
                    f"teacher of {teacher.shape[1]}: a recipe that distils patches needs as many."
                )
            values = self._patch_means(student, teacher)
            terms |= {f"patch_{name}": recipe.patch_weight * v for name, v in values.items()}
        return terms

    def patch_weights(self, teacher: Tensor) -> Tensor:
        """The weight of every patch, (B, P), mean 1 per image, from the teacher's patch logits."""
        recipe = self.recipe
        if recipe.weights == "uniform":
            return torch.ones_like(teacher[..., 0])
        posteriors = F.softmax(teacher.detach() - self.bias, -1)
        if recipe.weights == "informativeness":
            assert self.mean_posterior is not None  # see __init__
            scores = distillation.informativeness(posteriors, self.mean_posterior)
        else:
            scores = 1 - distillation.ambiguity(posteriors, self.head)
        return distillation.patch_weights(scores, recipe.control)

    def _patch_means(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """The weighted patch losses, averaged over images and patches.

        With many classes the images are taken a few at a time and computed again for the
        gradient, so that what lies between holds PATCH_BYTES per tensor and not B · P · C.
        """
        few = max(1, PATCH_BYTES // (4 * student[0].numel()))
        if few >= len(student):
            return self._weighted(student, teacher)
        means: dict[str, Tensor] = {}
        for part, seen in zip(student.split(few), teacher.split(few), strict=True):
            share = len(part) / len(student)
            for name, value in checkpoint(self._weighted, part, seen, use_reentrant=False).items():
                means[name] = means.get(name, 0) + share * value
        return means

    def _weighted(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        weights = self.patch_weights(teacher)  # (B, P)
        values = self._patch_terms(student, self._target(teacher))
        return {name: (weights * value).mean() for name, value in values.items()}

    def _target(self, teacher: Tensor) -> Tensor:
        """What the student is to match: the teacher, without the class prior where calibrated."""
        return teacher - self.bias if self.recipe.calibrated else teacher

    def _image_terms(self, student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        kind, temperature = self.recipe.image, self.recipe.temperature
        if kind == "decoupled":
            return self._decoupled(teacher, student)
        if kind == "dkd":
            return {"dkd": distillation.dkd(teacher, student, labels, temperature=temperature)}
        if kind == "bkd":
            return {"bkd": distillation.bkd(teacher, student, self.class_weights, temperature)}
        if kind == "dive":
            return {"dive": distillation.dive(teacher, student, temperature=temperature)}
        if kind == "ltkd":
            return distillation.ltkd(teacher, student, self.thirds, temperature=temperature)
        return {"kd": distillation.kd(teacher, student, temperature)}

    def _patch_terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        if self.recipe.patch == "decoupled":
            return self._decoupled(teacher, student)
        return {"kd": distillation.kd(teacher, student, self.recipe.temperature)}

    def _decoupled(self, teacher: Tensor, student: Tensor) -> dict[str, Tensor]:
        r = self.recipe
        return distillation.decoupled(
            teacher, student, self.head, r.alpha, r.beta_head, r.beta_tail,
            r.temperature, r.head_temperature, r.tail_temperature,
        )  # fmt: skip


def teacher_bias(experiment: Experiment, counts: Tensor) -> Tensor:
    """What the class prior added to the teacher's logits, (C,).

    A loss that already adds the log prior while training (Balanced Softmax, logit adjustment)
    leaves none in the logits, and re-weighting hardly any. For LDAM's margins the same is assumed.
    For the focal loss, whose best logits are nearer to each other than log odds, log π is too much.
    What `teacher_mix` adds to the share of the tail's labels is not counted.
    """
    biased = experiment.teacher_loss in ("cross_entropy", "focal")
    return log_prior(counts) if biased else torch.zeros(len(counts))


def mean_posterior(posteriors: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Average patch posteriors (N, P, C) over each class's images, then over classes: (C,).

    `counts` are the training images per class, (C,). Given a part of the images, returns what they
    add: the parts' sum is the mean over all.

    >>> posteriors = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    >>> mean_posterior(posteriors, torch.tensor([0, 0, 1]), counts=torch.tensor([2, 1]))
    tensor([0.5000, 0.5000])
    """
    classes = (counts > 0).sum()
    return (1 / (counts[labels] * classes)).to(posteriors) @ posteriors.mean(1)
