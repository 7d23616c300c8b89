"""The loop: the same weights bit for bit, interrupted or not, and what happens when it fails."""

import copy
import errno
import itertools
import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from ltkd import runs, training
from ltkd.batches import Batches
from ltkd.datasets import LongTailedData
from ltkd.mixing import Mixing
from ltkd.networks import ResNet, image_logits
from ltkd.schedules import SCHEDULES
from ltkd.training import Trainer, TrainingError, accelerator_for, rate, seed_epoch

PLAIN = replace(SCHEDULES["digits"], epochs=3)
EVERYTHING = replace(
    PLAIN, augment=("crop", "flip", "autoaugment", "cutout"), ema=0.9, batch_size=100
)


class Interrupter:
    """Cross-entropy that is interrupted at one call, or gives a wrong loss there."""

    def __init__(self, at: int | None = None, error=KeyboardInterrupt, value: float | None = None):
        self.at, self.error, self.value, self.calls = at, error, value, 0

    def __call__(self, batch, patches, done):
        self.calls += 1
        if self.calls == self.at:
            if self.value is None:
                raise self.error
            return {"class": patches.sum() * self.value}
        loss = torch.nn.functional.cross_entropy(image_logits(patches.float()), batch.labels)
        return {"class": loss}


def trainer(
    data: LongTailedData, state_file, objective=None, schedule=PLAIN, kind=ResNet, **options
) -> Trainer:
    torch.manual_seed(1)
    mixing = Mixing("cutmix" if schedule is EVERYTHING else "none")
    batches = Batches(data.train, schedule.batch_size, schedule.augment, mixing)
    identity = options.pop("identity", {"experiment": {"seed": 0}})
    network = kind(10, depth=8, width=8)
    accelerator = accelerator_for(schedule.precision)
    objective = objective or Interrupter()
    return Trainer(
        network, batches, objective, schedule, accelerator, state_file, identity, **options
    )


@pytest.fixture
def state_file(tmp_path):
    return tmp_path / "teacher_training.pth"


def fitted(*arguments, **options) -> tuple[dict, list]:
    """The weights after training, and the history; the state is removed, as its caller does."""
    run = trainer(*arguments, **options)
    history = run.fit()
    run.state_file.unlink()
    return run.plain.state_dict(), history


@pytest.fixture(scope="module")
def at_one_go(digits, tmp_path_factory):
    """A function: (schedule) → weights and history of a training that nothing interrupts.

    Each is trained once; its results are for reading only.
    """

    @cache
    def trained(schedule=PLAIN):
        return fitted(digits, tmp_path_factory.mktemp("run") / "state.pth", schedule=schedule)

    return trained


def equal(first: dict, second: dict) -> bool:
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


def test_the_same_seed_gives_the_same_weights(digits, state_file, at_one_go):
    first = at_one_go(EVERYTHING)
    torch.rand(7)  # what the caller draws does not matter
    again = fitted(digits, state_file, schedule=EVERYTHING)
    assert equal(first[0], again[0])
    assert first[1] == again[1]
    assert not equal(first[0], fitted(digits, state_file, schedule=EVERYTHING, seed=1)[0])


@pytest.mark.parametrize("schedule", [PLAIN, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("share", [0.1, 1.5, 2.99])
def test_interrupted_and_resumed_gives_the_same_weights(
    digits, state_file, at_one_go, schedule, share, capsys
):
    weights, history = at_one_go(schedule)
    batches = -(-len(digits.train.labels) // schedule.batch_size)
    at = Interrupter(at=1 + int(share * batches))
    with pytest.raises(KeyboardInterrupt):
        fitted(digits, state_file, at, schedule=schedule)
    resumed = fitted(digits, state_file, schedule=schedule)
    assert equal(resumed[0], weights)
    assert resumed[1] == history
    said = f"Resumed the teacher after epoch {int(share)}.\n" if share > 1 else ""
    assert capsys.readouterr().out == said


def test_interrupted_twice(digits, state_file, at_one_go):
    weights, _ = at_one_go(EVERYTHING)
    for at in (6, 7):  # four batches an epoch: in the second and in the third
        with pytest.raises(EOFError):
            fitted(digits, state_file, Interrupter(at, EOFError), schedule=EVERYTHING)
    assert equal(fitted(digits, state_file, schedule=EVERYTHING)[0], weights)


def interrupted_state(data, state_file, **options) -> None:
    with pytest.raises(KeyboardInterrupt):
        fitted(data, state_file, Interrupter(at=8), **options)
    assert state_file.exists()


def test_processes_that_would_go_on_after_different_epochs(digits, state_file, monkeypatch):
    """Machines that do not see the same folder: one finds the state, another does not."""
    monkeypatch.setattr(training.processes, "gather", lambda rows: [rows, [2]])
    with pytest.raises(TrainingError, match=r"after different epochs \(0, 2\): all machines must"):
        trainer(digits, state_file).fit()


def test_the_state_of_another_experiment_is_not_resumed(digits, state_file, at_one_go, capsys):
    weights, _ = at_one_go()
    interrupted_state(digits, state_file, identity={"experiment": {"seed": 5}})
    assert equal(fitted(digits, state_file)[0], weights)
    said = capsys.readouterr().out
    assert f"{state_file} is not used (it belongs to another experiment): starting anew." in said


def damage(state_file, kind: str) -> None:
    content = state_file.read_bytes()
    if kind == "truncated":
        state_file.write_bytes(content[: len(content) // 2])
    elif kind == "text":
        state_file.write_text("no state")
    else:  # a part is missing, after others that could be loaded
        state = torch.load(state_file, weights_only=True)
        del state["scheduler"]
        torch.save(state, state_file)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "no"),
        PermissionError(errno.EACCES, "no"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_state_that_cannot_be_read_now_is_kept(digits, state_file, monkeypatch, error):
    def stopped(*arguments, **options):
        raise error

    interrupted_state(digits, state_file)
    before = state_file.read_bytes()
    with monkeypatch.context() as patched, pytest.raises(TrainingError, match="cannot be read now"):
        patched.setattr(training.torch, "load", stopped)
        trainer(digits, state_file).fit()
    assert state_file.read_bytes() == before


@pytest.mark.parametrize("kind", ["truncated", "text", "a part missing"])
def test_a_damaged_state_starts_anew(digits, state_file, at_one_go, kind, capsys):
    weights, history = at_one_go()
    interrupted_state(digits, state_file)
    damage(state_file, kind)
    again = fitted(digits, state_file)
    said = capsys.readouterr().out
    assert f"{state_file} is not used (" in said
    assert said.count("\n") == 1
    assert equal(again[0], weights)
    assert again[1] == history


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number(digits, state_file, at_one_go, value):
    weights, _ = at_one_go()
    with pytest.raises(TrainingError, match="no longer a number at step 2 of 5 in epoch 2"):
        fitted(digits, state_file, Interrupter(at=7, value=value))
    history = torch.load(state_file, weights_only=True)["history"]
    assert len(history) == 1  # the state of the epoch before is kept
    assert equal(fitted(digits, state_file)[0], weights)


def test_the_callers_random_numbers_stay_as_they_were(digits, state_file):
    run = trainer(digits, state_file, schedule=EVERYTHING)
    torch.manual_seed(11)
    expected = torch.rand(5)
    torch.manual_seed(11)
    run.fit()
    assert torch.equal(torch.rand(5), expected)


def test_the_loss_falls_and_every_term_is_logged(digits, state_file, narrow):
    experiment = replace(narrow, schedule=replace(PLAIN, epochs=10))
    _, content = runs.train(experiment, digits, "teacher")
    history = content["history"]
    assert len(history) == 10
    assert all(list(terms) == list(history[0]) for terms in history)
    totals = [sum(terms.values()) for terms in history]
    assert totals[-1] < 0.6 * totals[0]


def test_history_is_the_mean_over_the_epochs_batches(digits, state_file):
    values = iter(range(1, 100))

    def counting(batch, patches, done):
        return {"one": patches.sum() * 0 + next(values), "two": patches.sum() * 0 + 10}

    _, history = fitted(digits, state_file, counting)
    assert history == [{"one": v, "two": 10} for v in (3, 8, 13)]  # five batches an epoch


def test_the_objective_is_told_how_far_training_is(digits, state_file):
    seen, objective = [], Interrupter()

    def listening(batch, patches, step):
        seen.append(step)
        return objective(batch, patches, step)

    fitted(digits, state_file, listening)
    assert [step.done for step in seen] == pytest.approx([i / 15 for i in range(15)])
    assert [step.epoch for step in seen] == [0] * 5 + [1] * 5 + [2] * 5
    assert [step.index for step in seen] == [*range(5)] * 3


def test_the_average_is_that_of_the_formula(digits, state_file):
    plain = trainer(digits, state_file, schedule=replace(PLAIN, epochs=1, ema=0.0))
    averaged = trainer(digits, state_file, schedule=replace(PLAIN, epochs=1, ema=0.8))
    names, expected = ("classifier.weight", "norm.running_mean"), {}

    def step(*arguments):
        for name in names:
            value = plain.plain.state_dict()[name].clone()
            expected[name] = 0.8 * expected.get(name, value) + 0.2 * value

    plain.optimizer.register_step_post_hook(step)
    plain.fit()
    averaged.fit()
    for name in names:
        assert torch.allclose(averaged.plain.state_dict()[name], expected[name], atol=1e-6)
        assert not torch.allclose(plain.plain.state_dict()[name], expected[name], atol=1e-4)


def test_tables_of_whole_numbers_are_not_averaged(digits, state_file):
    """Swin and MaxViT keep the relative positions of patches in such a table."""

    class WithTable(ResNet):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.register_buffer("table", torch.arange(1000).view(10, 100))

    averaged = trainer(
        digits, state_file, schedule=replace(PLAIN, epochs=1, ema=0.9), kind=WithTable
    )
    averaged.fit()
    assert torch.equal(averaged.plain.table, torch.arange(1000).view(10, 100))


def test_all_terms_are_trained(digits, state_file):
    """Two terms, or their sum as one, are the same training."""
    whole, once = Interrupter(), replace(PLAIN, epochs=1)

    def halves(batch, patches, step):
        loss = whole(batch, patches, step)["class"]
        return {"a quarter": loss / 4, "the rest": 3 * loss / 4}

    weights, history = fitted(digits, state_file, schedule=once)
    found, terms = fitted(digits, state_file, halves, schedule=once)
    assert sum(terms[0].values()) == pytest.approx(history[0]["class"], rel=1e-4)
    assert all(torch.allclose(found[k], weights[k], rtol=1e-3, atol=1e-5) for k in weights)


def test_the_first_epochs_see_small_images(digits, state_file):
    sides, objective = {}, Interrupter()

    def looking(batch, patches, step):
        sides.setdefault(step.epoch, set()).add(batch.images.shape[-1])
        return objective(batch, patches, step)

    fitted(digits, state_file, looking, schedule=replace(PLAIN, small=0.3))
    assert sides == {0: {24}, 1: {32}, 2: {32}}  # 0.3 of three epochs is one


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_bfloat16(digits, narrow, role, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    experiment = replace(narrow, schedule=replace(PLAIN, epochs=1, precision="bf16"))
    assert accelerator_for("bf16").mixed_precision == "bf16"
    network, content = runs.train(experiment, digits, role)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert math.isfinite(sum(content["history"][0].values()))


def test_rate_rises_then_falls():
    rates = [rate(step, 100, 0.3) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 30)
    assert rates[29] == rates[30] == 1
    assert rates[15] == pytest.approx(16 / 30)
    assert rates[65] == pytest.approx(0.5)  # half of the way down
    assert rates[100] == pytest.approx(0)
    assert all(a > b for a, b in pairwise(rates[30:]))
    line = [rate(step, 100, 0.2, "linear") for step in range(101)]
    assert line[:30] != rates[:30] and line[60] == pytest.approx(0.5) and line[100] == 0
    assert line[40] - line[41] == pytest.approx(1 / 80)


def test_epochs_and_roles_have_their_own_random_numbers():
    def drawn(*words):
        seed_epoch(*words)
        return tuple(torch.rand(3).tolist())

    with torch.random.fork_rng():
        words = [(0, "teacher", 0), (0, "teacher", 1), (0, "student", 0), (1, "teacher", 0)]
        assert len({drawn(*w) for w in words}) == 4
        assert drawn(0, "teacher", 1) == drawn(0, "teacher", 1)


def test_the_time_of_all_sessions_is_counted(digits, state_file, monkeypatch):
    """On a clock by which every epoch takes a second."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(training, "time", clock)
    with pytest.raises(KeyboardInterrupt):
        fitted(digits, state_file, Interrupter(at=6))
    before = torch.load(state_file, weights_only=True)["seconds"]
    run = trainer(digits, state_file)
    run.fit()
    assert before >= 1 and run.seconds == 3 * before  # one epoch of three was done


def test_the_loop_is_that_of_a_textbook(digits, state_file):
    """SGD with Nesterov momentum and weight decay, written out, on the same batches."""
    run = trainer(digits, state_file, schedule=replace(PLAIN, epochs=2))
    run.plain.double()  # rounding of float32 would grow from step to step
    network, velocity = copy.deepcopy(run.plain), {}
    run.fit()
    with torch.random.fork_rng():
        for epoch in range(2):
            seed_epoch(0, "teacher", epoch)
            for index, batch in enumerate(run.batches.epoch()):
                logits = network.train()(batch.images).float().mean(1)
                loss = torch.nn.functional.cross_entropy(logits, batch.labels)
                weights = list(network.parameters())
                lr = PLAIN.learning_rate * rate(5 * epoch + index, 10, PLAIN.warmup, PLAIN.decay)
                for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    slope = slope + PLAIN.weight_decay * weight.detach()
                    velocity[weight] = PLAIN.momentum * velocity.get(weight, 0) + slope
                    weight.data -= lr * (slope + PLAIN.momentum * velocity[weight])
    found, wanted = run.plain.state_dict(), network.state_dict()
    assert all(torch.allclose(found[k], wanted[k], rtol=1e-5, atol=1e-7) for k in wanted)
