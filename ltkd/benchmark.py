"""How fast it is, measured: python -m ltkd benchmark NAME.

`step` and `inference` call what they compare in turn (A B A B …) and give the median and the spread
of the repetitions, so that a busy machine slows all alike. Results are printed as a table
and written to saved_model/benchmarks/<name>.json with command, machine and versions.
"""

import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F

from . import datasets
from .checkpoints import save_checkpoint, versions
from .evaluation import evaluate_network, predict
from .experiments import Experiment
from .files import write_json
from .initial import new_network
from .longtail import GROUPS
from .networks import PatchNetwork
from .places import home
from .processes import start
from .provenance import machine
from .runs import trainer_for
from .schedules import SCHEDULES
from .timing import alternate, print_table, spread, synthetic
from .trials import trial

RESNET32_GFLOP = 0.417  # an image of 32 × 32 pixels, forward and backward
CLASSIC_EPOCHS = 200  # of LDAM-DRW (Cao et al. 2019)
CIFAR = Experiment.named("cifar100-lt-quick")  # a ResNet-32 in the `fast` schedule


# ------------------------------------------------------------------------------ time to accuracy


def contenders() -> dict[str, Experiment]:
    """A ResNet-32 of the literature's size, and a network of up to 2 million parameters."""
    short = replace(CIFAR.schedule, epochs=24)
    wide = replace(CIFAR, depth=8, teacher_width=64, stem_stride=2, schedule=short)
    return {"ResNet-32": CIFAR, "ResNet-8, 4 × as wide, at half the resolution": wide}


def time_to_accuracy(seeds: int = 3) -> Iterator[dict]:
    """Train CIFAR-100-LT from scratch; wall-clock time of training and of testing, accuracy."""
    data = datasets.build(CIFAR)
    classic = classic_seconds(len(data.train.labels), len(data.test.labels))
    print(f"The classic loop, {CLASSIC_EPOCHS} epochs, estimated from its steps: {classic:,.0f} s.")
    for name, experiment in contenders().items():
        for seed in range(seeds):
            row = _one_training(name, replace(experiment, seed=seed), data)
            row |= {"faster than classic": classic / row["seconds"]}
            print_table([row])
            yield row


def _one_training(name: str, experiment: Experiment, data: datasets.LongTailedData) -> dict:
    begin = time.perf_counter()
    network = trial(experiment, data)  # from scratch, whatever lies in saved_model/
    trained = time.perf_counter() - begin
    scores = evaluate_network(network, data.test, data.groups)
    seconds = time.perf_counter() - begin
    epochs = experiment.schedule.epochs
    return {
        "network": name,
        "seed": experiment.seed,
        "seconds": seconds,
        "epochs": epochs,
        "images/s": epochs * len(data.train.labels) / trained,
        "parameters": sum(p.numel() for p in network.parameters()),
        "accuracy": scores["all"],
    } | {group: scores["groups"][group] for group in GROUPS}


def classic_seconds(train: int, test: int) -> float:
    """Seconds of 200 epochs as the field's code runs them: float32, NCHW, batches of 128.

    Estimated from ten steps and two test batches; its slow data loading is left out.
    """
    data, device = synthetic(256), start().device
    network = new_network(CIFAR, data, "teacher").to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    images, labels = (torch.from_numpy(v[:128]).to(device) for v in data.train[:2])

    def step() -> None:
        network.train()
        optimizer.zero_grad()
        F.cross_entropy(network(images).mean(1), labels).backward()
        optimizer.step()

    jobs = {"step": step, "test": lambda: predict(network, data.train.images[:128], 128)}
    seconds = {name: median(times) for name, times in alternate(jobs, 10).items()}
    return CLASSIC_EPOCHS * (seconds["step"] * train + seconds["test"] * test) / 128


# ------------------------------------------------------------------------------------------ step


def step(repetitions: int = 7) -> list[dict]:
    """The cost of a training step, of its data side, and of distillation."""
    ceiling = convolution_ceiling()
    print(f"The convolution ceiling of this machine in bfloat16: {ceiling:,.0f} GFLOP/s.")
    data, built = synthetic(8 * 128), CIFAR.built_file.parent
    banks = set(built.glob("teacher-outputs-*"))
    jobs = _step_jobs(data)
    times = alternate(jobs, repetitions)
    for bank in set(built.glob("teacher-outputs-*")) - banks:
        shutil.rmtree(bank)
    plain = median(times["plain"])
    rows = []
    for name, seconds in times.items():
        images = len(data.train.labels) / median(seconds)
        row = {"step": name, "ms": 1e3 * median(seconds) / 8, "±": 1e3 * spread(seconds) / 8}
        row |= {"images/s": images, "of plain": median(seconds) / plain}
        if name.startswith("plain"):
            row["of ceiling"] = images * RESNET32_GFLOP / ceiling
        rows.append(row)
    return rows


def _step_jobs(data: datasets.LongTailedData) -> dict[str, Callable[[], object]]:
    """Eight steps each, by the code that trains: Trainer._epoch, or the batches alone."""
    plan = replace(SCHEDULES["paper"], augment=("crop", "flip"), compile=False)
    plain = replace(CIFAR, schedule=plan, distillation="image_and_patch")
    wide, strong = replace(plain, teacher_width=64), SCHEDULES["paper"].augment
    same, large = (new_network(e, data, "teacher") for e in (plain, wide))
    fast = replace(plan, compile=True)

    def training(
        experiment: Experiment, teacher: PatchNetwork | None = None, **changes: Any
    ) -> Callable[[], object]:
        experiment = replace(experiment, **changes)
        role = "student" if teacher else "teacher"
        return partial(trainer_for(experiment, data, role, teacher)._epoch, 0)

    def loading(augment: tuple[str, ...]) -> Callable[[], object]:
        schedule = replace(plan, augment=augment)
        batches = trainer_for(replace(plain, schedule=schedule), data, "teacher").batches
        return lambda: list(batches.epoch())

    return {
        "plain": training(plain),
        "plain, compiled": training(plain, schedule=fast),
        "plain, float32": training(plain, schedule=replace(plan, precision="no")),
        "data alone: crop, flip": loading(plan.augment),
        "data alone: and AutoAugment, Cutout": loading(strong),
        "student, image level": training(plain, same, distillation="decoupled"),
        "student, image and patch level": training(plain, same),
        "student, compiled": training(plain, same, schedule=fast),
        "student of a teacher 4 × as wide": training(wide, large),
        "the same, from the bank": training(wide, large, bank=1),
    }


def convolution_ceiling(repetitions: int = 20) -> float:
    """GFLOP/s of ResNet-32's three kinds of 3 × 3 convolution: forward, bfloat16, batch 128."""
    seconds = work = 0.0
    options = {"dtype": torch.bfloat16, "device": start().device}
    for channels, side in ((16, 32), (32, 16), (64, 8)):
        shapes = (128, channels, side, side), (channels, channels, 3, 3)
        images, weight = (
            torch.randn(s, **options).to(memory_format=torch.channels_last) for s in shapes
        )
        job = partial(F.conv2d, images, weight, padding=1)
        seconds += median(alternate({"convolution": job}, repetitions)["convolution"])
        work += 2 * weight.numel() * 128 * side**2
    return work / seconds / 1e9


# ---------------------------------------------------------------------------------------- growth


def growth(most: int = 200_000) -> Iterator[dict]:
    """Time and peak memory of a student's epoch against images, classes and patches.

    A ResNet-8 and a teacher of its size. Every row is a process of its own, whose peak memory the
    operating system counts; the first row tells what torch takes by itself.
    """
    sizes = [(n, 100, 4) for n in (1_000, 10_000, 50_000, 200_000) if n <= most]
    sizes += [(10_000, classes, 4) for classes in (10, 1_000, 8_142)]
    sizes += [(10_000, 100, grid) for grid in (1, 2, 8)]
    for size in [(0, 0, 0), *sizes]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(_growth_point, size)
        print_table([row])
        yield row


def _growth_point(images: int, classes: int, grid: int) -> dict:
    import resource

    seconds = 0.0
    if images:
        plan = replace(SCHEDULES["fast"], epochs=1, small=0.0)
        experiment = replace(CIFAR, depth=8, schedule=plan, distillation="image_and_patch")
        data = synthetic(images, classes)
        teacher = new_network(experiment, data, "teacher")
        network = new_network(experiment, data, "student")
        trainer = trainer_for(experiment, data, "student", teacher, network)
        network.grid = teacher.grid = grid
        begin = time.perf_counter()
        trainer._epoch(0)
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if MAC else 2**10)
    row = {"images": images, "classes": classes, "patches": grid**2, "seconds": seconds}
    return row | {"ms/image": 1e3 * seconds / max(1, images), "peak MiB": peak}


MAC = sys.platform == "darwin"  # counts bytes where Linux counts KiB

# ------------------------------------------------------------------------------------- inference


def inference(repetitions: int = 100) -> list[dict]:
    """Loading a model, classifying one image with its patch evidence, importing ltkd."""
    from .classifier import Classifier

    data = synthetic(1_000)
    image = Image.fromarray(data.train.images[0].transpose(1, 2, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"
        network = new_network(CIFAR, data, "student")
        save_checkpoint(path, network, data, CIFAR, "student", {}, [])
        classifier = Classifier.load(path)
        jobs = {"load": lambda: Classifier.load(path), "predict": lambda: classifier.predict(image)}
        jobs["first predict after load"] = lambda: Classifier.load(path).predict(image)
        times = alternate(jobs, repetitions)
    code = "import time, torch; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    for module in ("ltkd", "ltkd.classifier"):
        words = [sys.executable, "-c", code.format(module)]
        times[f"import {module} after torch"] = [
            float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
            for _ in range(5)
        ]
    return [{"job": n, "ms": 1e3 * median(t), "±": 1e3 * spread(t)} for n, t in times.items()]


# ----------------------------------------------------------------------------------------- tables

BENCHMARKS = {
    "time-to-accuracy": time_to_accuracy,
    "step": step,
    "growth": growth,
    "inference": inference,
}


def run(name: str, **options: int) -> list[dict]:
    """Run a benchmark, print its table, write its JSON; return the rows."""
    rows = []
    for row in BENCHMARKS[name](**options):
        rows.append(row)
        path = save(name, rows, **options)  # an interrupted run leaves what it has
    print_table(rows)
    if name == "growth":
        from . import plots

        plots.growth(rows).savefig(path.with_suffix(".png"), dpi=120)
    return rows


def save(name: str, rows: list[dict], **options: int) -> Path:
    """Write saved_model/benchmarks/<name>.json and return its path."""
    path = home() / "saved_model" / "benchmarks" / f"{name}.json"
    given = "".join(f" --{option} {value}" for option, value in options.items())
    content = {"command": f"python -m ltkd benchmark {name}{given}", "rows": rows}
    write_json(path, content | {"machine": machine(), "versions": versions()})
    return path
