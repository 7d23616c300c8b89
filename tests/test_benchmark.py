"""The benchmarks' own arithmetic; what they measure is measured by hand, never in a test."""

import json

import numpy as np
import pytest
import torch

from ltkd import benchmark
from ltkd.__main__ import main
from ltkd.runs import state_file
from ltkd.training import Trainer


def test_jobs_are_called_in_turn_and_the_first_call_is_not_timed():
    calls = []
    jobs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = benchmark.alternate(jobs, repetitions=2)
    assert calls == ["a", "b"] * 3
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_spread_is_half_the_distance_of_the_quartiles():
    assert benchmark.spread([1, 2, 3, 4, 5]) == 1
    assert benchmark.median([5, 1, 3]) == 3


@pytest.mark.parametrize("images, classes", [(50, 20), (1000, 10), (9000, 8142)])
def test_synthetic_data_have_a_tail_and_no_empty_class(images, classes):
    data = benchmark.synthetic(images, classes)
    assert len(data.counts) == classes and data.counts.sum() == images == len(data.train.images)
    assert data.counts.min() >= 1 and data.counts.max() > data.counts.min()
    assert data.train.images.dtype == np.uint8


def test_a_point_of_growth_has_the_patches_that_it_tells(monkeypatch):
    seen, sizes, epoch = [], [], Trainer._epoch

    def watched(self, number):
        network = self.plain
        seen.append(network(torch.zeros(2, 3, 32, 32)).shape[1:])
        sizes.append(sum(p.numel() for p in network.parameters()))
        return epoch(self, number)

    monkeypatch.setattr(Trainer, "_epoch", watched)
    row = benchmark._growth_point(300, 10, 2)
    assert (row["images"], row["classes"], row["patches"]) == (300, 10, 4)
    assert set(seen) == {(4, 10)}
    assert max(sizes) < 100_000  # the network of eight layers


def test_the_contenders_keep_to_their_sizes():
    narrow, wide = benchmark.contenders().values()
    data = benchmark.synthetic(200)
    sizes = [
        sum(p.numel() for p in benchmark.new_network(e, data, "teacher").parameters())
        for e in (narrow, wide)
    ]
    assert 460_000 <= sizes[0] <= 475_000 and sizes[1] <= 2_000_000


def test_results_are_printed_and_written_with_their_command(home, capsys, monkeypatch):
    rows = [{"job": "x", "ms": 1.5}, {"job": "y", "ms": 1234.5, "more": 2000}]
    monkeypatch.setitem(benchmark.BENCHMARKS, "inference", lambda: rows)
    assert main(["benchmark", "inference"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["job", "ms", "more"]
    written = json.loads((home / "saved_model/benchmarks/inference.json").read_text())
    assert written["command"] == "python -m ltkd benchmark inference"
    assert written["rows"] == rows and written["machine"]["cores"] >= 1


def test_an_unfinished_teacher_is_left_alone(digits, quick):
    state = state_file(quick, "teacher")
    state.parent.mkdir(parents=True)
    state.write_bytes(b"of somebody who trains the same")
    row = benchmark._one_training("x", quick, digits)
    assert row["epochs"] == 1 and row["accuracy"] > 0
    assert state.read_bytes() == b"of somebody who trains the same"
    assert list(state.parent.iterdir()) == [state]


def test_seeds_belong_to_time_to_accuracy(capsys):
    assert main(["benchmark", "time-to-accuracy", "--seeds", "0"]) == 1
    assert "--seeds is at least 1, not 0" in capsys.readouterr().err
    assert main(["benchmark", "step", "--seeds", "2"]) == 1
    assert "--seeds is an option of time-to-accuracy alone" in capsys.readouterr().err
