"""How long and how a network is trained."""

from dataclasses import dataclass, replace

from .options import check_choice

CHOICES = {
    "optimizer": ("sgd", "muon", "adamw"),
    "decay": ("cosine", "linear"),
    "precision": ("bf16", "no"),
}


@dataclass(frozen=True)
class Schedule:
    """How long and with which optimiser a network is trained.

    The learning rate rises over the first `warmup` share of the steps and falls to 0 afterwards,
    along a cosine or a line: a small share is "warm-up and cosine", 0.3 is one-cycle (Smith 2018).
    """

    name: str
    epochs: int
    batch_size: int = 128  # over all processes
    optimizer: str = "sgd"  # or "muon", see optimizers.Muon; both with Nesterov momentum; "adamw"
    learning_rate: float = 0.1  # at its peak
    backbone_rate: float = 1.0  # what is not the classifier learns at this share of the rate
    muon_rate: float = 0.05  # of the convolutions, with "muon"
    warmup: float = 0.025  # share of all steps
    decay: str = "cosine"  # or "linear"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: tuple[str, ...] = ("crop", "flip")  # see batches.AUGMENTATIONS
    ema: float = 0.0  # decay of the averaged weights; 0 keeps no average
    small: float = 0.0  # share of the epochs, the first, on images of three quarters of the side
    precision: str = "bf16"  # "bf16" where the device has it, else float32; "no": float32
    compile: bool = False  # by torch.compile: most of a minute at the start, faster steps after

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"A schedule needs at least 1 epoch and batches of at least 2 images, not "
                f"{self.epochs} and {self.batch_size}."
            )
        for field, choices in CHOICES.items():
            check_choice(field, getattr(self, field), choices)


SMALL = 0.75  # side of the small images of a schedule, as a share of the whole
FAST = Schedule("fast", 20, optimizer="muon", warmup=0.1, decay="linear", small=0.6)
SCHEDULES = {
    s.name: s
    for s in (
        Schedule("digits", 60, 64, warmup=0.3, augment=("crop",), precision="no"),
        FAST,
        replace(
            FAST, name="long", epochs=100, augment=("crop", "flip", "autoaugment"), compile=True
        ),
        Schedule("paper", 200, augment=("crop", "flip", "autoaugment", "cutout"), compile=True),
        replace(
            FAST,
            name="photographs",
            epochs=60,
            small=0.5,
            augment=("resized_crop", "flip", "colour"),
        ),
        Schedule(
            "finetune",
            20,
            64,
            optimizer="adamw",
            learning_rate=1e-3,
            backbone_rate=0.1,
            warmup=0.1,
            weight_decay=0.05,
            augment=("resized_crop", "flip", "colour"),
        ),
    )
}
