"""The bank of teacher outputs: what is read is what was said, and only whole epochs count."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ltkd import runs
from ltkd.bank import TeacherBank, bank_folder
from ltkd.files import claimed
from ltkd.networks import ResNet


class Teacher:
    """Says something else at every call, and counts the calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return torch.full((len(images), 4, 3), float(self.calls))


IMAGES = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)


def epoch_of(bank, epoch, images=IMAGES, batches=3):
    return [bank(images, epoch, index)[0, 0, 0].item() for index in range(batches)]


def test_outputs_come_back_after_so_many_epochs(tmp_path):
    teacher = Teacher()
    bank = TeacherBank(teacher, tmp_path, epochs=2, batches=3)
    first = [epoch_of(bank, epoch) for epoch in range(2)]
    assert first == [[1, 2, 3], [4, 5, 6]]
    assert [epoch_of(bank, epoch) for epoch in range(2, 6)] == first * 2
    assert teacher.calls == 6
    said = bank(IMAGES, 7, 1)
    assert said.dtype == torch.bfloat16 and said.shape == (2, 4, 3)


def test_a_second_student_does_not_ask_the_teacher(tmp_path):
    epoch_of(TeacherBank(Teacher(), tmp_path, 1, 3), 0)
    assert epoch_of(TeacherBank(None, tmp_path, 1, 3), 0) == [1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY"])
def test_a_file_that_was_cut_short_is_written_again(tmp_path, content):
    epoch_of(TeacherBank(Teacher(), tmp_path, 1, 3), 0)
    next(tmp_path.iterdir()).write_bytes(content)
    teacher = Teacher()
    assert epoch_of(TeacherBank(teacher, tmp_path, 1, 3), 0) == [1, 2, 3]
    assert teacher.calls == 3


def test_an_epoch_that_was_interrupted_is_asked_again(tmp_path):
    bank = TeacherBank(Teacher(), tmp_path, 1, 3)
    bank(IMAGES, 0, 0), bank(IMAGES, 0, 1)
    bank.claim.close()  # as where its process ends
    assert epoch_of(TeacherBank(Teacher(), tmp_path, 1, 3), 0) == [1, 2, 3]
    assert [file.suffix for file in tmp_path.iterdir()] == [".npy"]


def test_small_and_whole_images_are_kept_apart(tmp_path):
    bank = TeacherBank(Teacher(), tmp_path, 1, 3)
    assert epoch_of(bank, 0) != epoch_of(bank, 1, torch.zeros(2, 3, 16, 16, dtype=torch.uint8))


def test_memory_is_stated(tmp_path, capsys):
    bank = TeacherBank(lambda images: torch.zeros(2, 16, 2**15), tmp_path, 4, 3)
    epoch_of(bank, 0), epoch_of(bank, 1)
    said = capsys.readouterr().out  # 2 images · 16 · 2¹⁵ · 2 bytes · 3 batches
    assert said.count("images of 8 pixels takes 6.0 MiB an epoch, for 4 epochs at most") == 1
    epoch_of(bank, 2, torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert "images of 16 pixels takes 6.0 MiB" in capsys.readouterr().out


def test_what_another_student_writes_just_now_is_left_to_it(tmp_path):
    bank = TeacherBank(Teacher(), tmp_path, 1, 3)
    file = tmp_path / "0000-8px-0.npy"
    with claimed(file, "The test"):
        assert epoch_of(bank, 0) == [1, 2, 3]
        assert not file.exists()
    assert epoch_of(bank, 0) == [4, 5, 6]
    assert file.exists()


def test_another_teacher_has_another_folder(tmp_path):
    first, second = ResNet(3, depth=8, width=4), ResNet(3, depth=8, width=4)
    assert bank_folder(tmp_path, first, {"seed": 0}) == bank_folder(tmp_path, first, {"seed": 0})
    others = {bank_folder(tmp_path, second, {"seed": 0}), bank_folder(tmp_path, first, {"seed": 1})}
    assert len(others | {bank_folder(tmp_path, first, {"seed": 0})}) == 3


def test_a_student_learns_the_same_from_a_bank_of_all_epochs(digits, narrow, monkeypatch):
    """A bank as long as the training repeats nothing: only bfloat16 makes a difference."""
    base = replace(narrow, schedule=replace(narrow.schedule, epochs=2))
    histories = [
        runs.train(e, digits, "student")[1]["history"] for e in (base, replace(base, bank=2))
    ]
    for one, two in zip(*histories, strict=True):
        assert two == pytest.approx(one, rel=0.02, abs=0.01)
    (folder,) = base.built_file.parent.glob("teacher-outputs-*")
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["0000-32px-0.npy", "0001-32px-0.npy"]
    steps = -(-len(digits.train.labels) // base.schedule.batch_size)
    assert np.load(files[0]).shape == (steps, base.schedule.batch_size, 16, 10)


def test_augmentations_repeat_with_the_bank(digits, narrow, monkeypatch):
    seen, epochs = [], []
    experiment = replace(narrow, bank=2, schedule=replace(narrow.schedule, epochs=4))
    teacher = runs.train(narrow, digits, "teacher")[0]
    trainer = runs.trainer_for(experiment, digits, "student", teacher)
    objective = trainer.objective

    def listening(batch, patches, step):
        if step.index == 0:
            epochs.append(step.epoch)
            seen.append(batch.images.clone())
        return objective(batch, patches, step)

    trainer.objective = listening
    trainer.fit()
    assert epochs == [0, 1, 2, 3]
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
