"""A program for test_processes.py: losses of the first steps, and what was learned, to a file.

python first_steps.py FILE, alone or by torchrun.
"""

import sys
from dataclasses import replace

import torch

from ltkd import datasets, processes, runs
from ltkd.evaluation import evaluate_network
from ltkd.experiments import Experiment

CASES = {
    "cutmix": {"teacher_mix": "cutmix", "student_mix": "tail_patches"},
    "local crops": {"student_mix": "local_crops"},
    "small images, muon": {"schedule": {"small": 1.0, "optimizer": "muon"}},
    "decoupled, deferred": {"student_loss": "ldam_drw", "student_tail_loss": "class_balanced"},
    "batch sums": {"distillation": "ltkd"},
    "bank": {"bank": 1},
}


NEW_NETWORK = runs.new_network


def in_double(*arguments):
    """Rounding of float32 grows from step to step and would hide small errors."""
    return NEW_NETWORK(*arguments).double()


def first_losses(trainer: runs.Trainer, steps: int = 3) -> list[dict[str, float]]:
    """The loss terms of the first steps, averaged over the processes."""
    seen, objective = [], trainer.objective

    class Enough(Exception):
        pass

    def listening(batch, patches, step):
        if len(seen) == steps:
            raise Enough
        terms = objective(batch, patches, step)
        seen.append({name: processes.mean(term).item() for name, term in terms.items()})
        return terms

    trainer.objective = listening
    try:
        trainer._epoch(0)
    except Enough:
        return seen
    raise AssertionError("an epoch has more steps")


def experiment_with(changes: dict) -> Experiment:
    base = Experiment.choose("digits-lt", epochs=1)
    plan = replace(base.schedule, batch_size=32, **changes.pop("schedule", {}))
    return replace(base, schedule=plan, width=4, teacher_width=4, **changes)  # for speed


def main(file: str) -> None:
    runs.new_network = in_double
    with processes.start().main_process_first():
        data = datasets.build(Experiment.named("digits-lt"))
    found, owners = {"processes": processes.count()}, []
    for case, changes in CASES.items():
        experiment = experiment_with(dict(changes))
        teacher = in_double(experiment, data, "teacher")
        if (owner := experiment.owner("teacher")) not in owners:  # most share one
            owners.append(owner)
            found["teacher", case] = first_losses(runs.trainer_for(experiment, data, "teacher"))
        trainer = runs.trainer_for(experiment, data, "student", teacher)
        found["student", case] = first_losses(trainer)
    found["weights"] = trainer.plain.state_dict()
    found["scores"] = evaluate_network(trainer.plain, data.test, data.groups)
    if processes.is_main():
        torch.save(found, file)
    processes.wait()
    processes.start().destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
