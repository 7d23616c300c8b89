"""The jobs without a notebook: python -m ltkd JOB EXPERIMENT; see JOBS below."""

import argparse
import atexit
import gc
import io
import signal
import sys

from . import datasets
from .experiments import EXPERIMENTS, Experiment
from .files import out_of_memory
from .options import OPTIONS, PROFILES
from .schedules import SCHEDULES
from .sources import DataError


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="python -m ltkd",
        description="Build long-tailed data, train a teacher, distil a student, evaluate both.",
    )
    jobs = main.add_subparsers(dest="job", required=True)
    for job, what in JOBS.items():
        about = what.__doc__ or ""
        sub = jobs.add_parser(
            job, help=about.partition("\n")[0], description=about, allow_abbrev=False
        )
        sub.add_argument(
            "experiment", help=f"{', '.join(EXPERIMENTS)}, or folder:<path> for your own images"
        )
        for option, kind in OPTIONS.items():
            flag = f"--{option.replace('_', '-')}"
            sub.add_argument(flag, type=kind, help=HELP[option], metavar=option.upper())
        if job == "ablation":
            sub.add_argument("--seeds", type=int, default=3, help="students per row")
            about = "patterns: only rows whose name fits one of them"
            sub.add_argument("--rows", nargs="+", default=[], help=about)
        if job == "notebooks":
            sub.add_argument("--save", action="store_true", help="save the outputs in notebooks/")
    about = "Measure speed: print a table and write saved_model/benchmarks/NAME.json."
    sub = jobs.add_parser("benchmark", help=about, description=about, allow_abbrev=False)
    sub.add_argument("name", choices=("time-to-accuracy", "step", "growth", "inference"))
    sub.add_argument("--seeds", type=int, help="of time-to-accuracy; 3 if not given")
    return main


def build(experiment: Experiment, options: dict) -> None:
    """Build the long-tailed data set and print its counts."""
    data = datasets.build(experiment)
    print(f"{experiment.built_file}: {len(data.class_names)} classes; {data.sizes} images; "
          f"{data.counts.max()} to {data.counts.min()} training images a class.")  # fmt: skip
    _report(experiment, data)


def _report(experiment: Experiment, data: datasets.LongTailedData) -> None:
    if experiment.folder:
        from .folders import report

        report(experiment, data)


def split(experiment: Experiment, options: dict) -> None:
    """Cut Stanford Cars or Caltech-256 and write the chosen file names to data/splits/."""
    from .selection import save_split

    print(save_split(experiment))


def teacher(experiment: Experiment, options: dict) -> None:
    """Train the teacher."""
    _train(experiment, "teacher")


def student(experiment: Experiment, options: dict) -> None:
    """Distil the student, after training the teacher where it is missing and asked."""
    _train(experiment, "student")


def _train(experiment: Experiment, role: str) -> None:
    """Train in this process, or in all that torchrun or `accelerate launch` started."""
    from .processes import start
    from .runs import train

    together = start()
    with together.main_process_first():  # one process builds, the others read
        new = not experiment.built_file.exists()
        data = datasets.build(experiment)
    if new and together.is_main_process:
        _report(experiment, data)
    train(experiment, data, role)
    together.destroy_process_group()


def _stopped(*_: object) -> None:
    raise KeyboardInterrupt


def evaluate(experiment: Experiment, options: dict) -> None:
    """Evaluate teacher and student on the test images, and write results.json."""
    from .evaluation import scores, table
    from .results import results

    print(table(scores(results(experiment, datasets.build(experiment)))))


def calibrate(experiment: Experiment, options: dict) -> None:
    """Make the student's probabilities right on the validation images (temperature scaling)."""
    from .calibration import calibrate

    calibrate(experiment, datasets.build(experiment))


def halve(experiment: Experiment, options: dict) -> None:
    """Store the trained models in half precision, where that costs no accuracy."""
    from .halving import halve

    halve(experiment, datasets.build(experiment))


def notebooks(experiment: Experiment, options: dict) -> None:
    """Execute the five notebooks, one after another."""
    from .notebooks import run_all

    run_all(experiment, save=options["save"])


def ablation(experiment: Experiment, options: dict) -> None:
    """Train a student for every part of the method left out or exchanged, and print the table."""
    from . import ablation

    if experiment.seed:
        raise ValueError("The ablation trains seeds 0, 1, …: say how many by --seeds, not --seed.")
    usual = experiment.default()
    if set_by_rows := [f for f in ablation.CHANGED if getattr(experiment, f) != getattr(usual, f)]:
        raise ValueError(
            f"The rows of the ablation set {' and '.join(set_by_rows)} themselves: leave that out, "
            f"and choose rows by --rows."
        )
    ablation.ablation(experiment, _positive(options["seeds"]), options["rows"])


def benchmark(name: str, seeds: int | None) -> None:
    from .benchmark import run

    if seeds is not None and name != "time-to-accuracy":
        raise ValueError("--seeds is an option of time-to-accuracy alone.")
    run(name, **({} if seeds is None else {"seeds": _positive(seeds)}))


def _positive(seeds: int) -> int:
    if seeds < 1:
        raise ValueError(f"--seeds is at least 1, not {seeds}.")
    return seeds


HELP = {
    "epochs": "shorten the schedule, for a trial",
    "schedule": f"one of {', '.join(SCHEDULES)}",
    "seed": "of weights, order and augmentation",
    "profile": f"one of {', '.join(PROFILES)}; with step, validation images are of the tail alone",
    "imbalance_factor": "images of the largest class over those of the smallest",
    "split_seed": "draws the cut, and the test images where there are no official ones",
    "depth": "layers of both networks, where they are the small ResNet: 8, 14, 20, 26, 32 …",
    "merge_below": "of your own photographs: make one class of all classes with fewer images",
    "image_size": "pixels, height and width",
    "backbone": "resnet (the small one), or a classification network of torchvision by its name",
    "weights": "imagenet: start a backbone of torchvision from its ImageNet weights",
    "teacher_loss": "a name from losses.CLASS_LOSSES",
    "teacher_mix": "how the teacher's images are mixed, a name from mixing.MIXES",
    "student_loss": "a name from losses.CLASS_LOSSES",
    "student_tail_loss": "the loss of tail images, if another one; a name from losses.CLASS_LOSSES",
    "student_mix": "how the student's images are mixed, a name from mixing.MIXES",
    "distillation": "a name from objectives.RECIPES",
    "teacher_width": "channels of the teacher's first stage",
    "teacher_depth": "layers of the teacher; the student's where not given",
    "teacher_stem_stride": "its first convolution's stride; the student's where not given",
    "teacher_members": "so many networks of the next seeds, their logits averaged, are the teacher",
    "student_epochs": "of the student, where they are not those of the schedule",
    "bank": "keep the teacher's outputs of so many epochs; after these the augmentations repeat",
}
JOBS = {
    job.__name__: job
    for job in (build, split, teacher, student, evaluate, calibrate, halve, ablation, notebooks)
}


def main(arguments: list[str] | None = None) -> int:
    """Run one job. Errors that a user can mend are one sentence, without a traceback."""
    for stream in (sys.stdout, sys.stderr):  # names of classes may hold what it cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = vars(parser().parse_args(arguments))
    signal.signal(signal.SIGTERM, _stopped)  # what torchrun sends when another process has died
    try:
        return _run(options.pop("job"), options)
    except KeyboardInterrupt:  # also while torch is imported, which can take seconds
        print("ltkd: stopped; the same command goes on from here.", file=sys.stderr)
        return 130


def _run(job: str, options: dict) -> int:
    try:
        if job == "benchmark":
            benchmark(**options)
        else:
            name, chosen = options.pop("experiment"), {o: options.pop(o) for o in OPTIONS}
            JOBS[job](Experiment.choose(name, **chosen), options)
    except Exception as error:
        if (sentence := _sentence(error)) is None:
            raise
        print(f"ltkd: {sentence}", file=sys.stderr)
        return 1
    return 0


def _sentence(error: Exception) -> str | None:
    """What to tell of an error that a user can mend; None for any other."""
    if isinstance(error, ValueError | OSError | DataError):
        return str(error)
    from .checkpoints import CheckpointError  # here, because they import torch, which takes seconds
    from .notebooks import NotebookError
    from .training import TrainingError

    if isinstance(error, CheckpointError | TrainingError | NotebookError):
        return str(error)
    full = "the memory is used up: choose a smaller image_size."
    return full if out_of_memory(error) else None


if __name__ == "__main__":
    # torch brings a million objects that stay. To look for garbage among them takes seconds while
    # it is imported, and at the end. New objects are looked through as ever.
    gc.set_threshold(700, 10, 1000)
    atexit.register(gc.freeze)
    sys.exit(main())
