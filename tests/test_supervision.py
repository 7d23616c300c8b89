"""What teacher and student learn from, term by term."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from ltkd import supervision
from ltkd.distillation import kd
from ltkd.experiments import Experiment
from ltkd.initial import new_network
from ltkd.losses import ClassLoss
from ltkd.mixing import Batch, crop_patches, local_crops, plain
from ltkd.networks import image_logits
from ltkd.runs import trainer_for
from ltkd.supervision import distillation_loss, mixing_for, objective_for
from ltkd.training import Step, accelerator_for

LATE = Step(epoch=0, index=0, done=0.9)


@pytest.fixture
def batch(digits) -> Batch:
    images = torch.from_numpy(digits.train.images[::40])
    labels = torch.from_numpy(digits.train.labels[::40])
    share = torch.linspace(0, 0.6, len(labels))
    return plain(images, labels)._replace(pasted_labels=labels.flip(0), pasted_share=share)


def terms_of(experiment, data, batch, teacher=None, role=None):
    torch.manual_seed(5)
    patches = torch.randn(len(batch.labels), 16, 10)
    accelerator = accelerator_for("no")
    role = role or ("teacher" if teacher is None else "student")
    objective = objective_for(experiment, data, role, teacher, accelerator, 5)
    return patches, objective(batch, patches, LATE)


def head_of(data):
    return torch.from_numpy(data.head)


def counts_of(data):
    return torch.from_numpy(data.counts)


@pytest.mark.parametrize("name", ["cross_entropy", "balanced_softmax", "ldam_drw"])
def test_a_teacher_learns_by_its_own_loss_from_labels_and_pasted_labels(name, digits, quick, batch):
    experiment = replace(quick, teacher_loss=name, student_loss="focal")
    patches, terms = terms_of(experiment, digits, batch)
    wanted = ClassLoss(name, counts_of(digits))(image_logits(patches), *batch[1:4], LATE.done)
    assert terms == wanted
    assert terms != ClassLoss(name, counts_of(digits))(image_logits(patches), batch.labels)


@pytest.mark.parametrize("tail", [None, "class_balanced"])
@pytest.mark.parametrize("recipe", ["kd", "dkd", "image_and_patch"])
def test_a_student_learns_by_its_losses_and_from_the_teacher(tail, recipe, digits, quick, batch):
    experiment = replace(quick, student_tail_loss=tail, distillation=recipe)
    teacher = new_network(experiment, digits, "teacher").eval()
    patches, terms = terms_of(experiment, digits, batch, teacher)
    loss = ClassLoss("balanced_softmax", counts_of(digits), tail, head_of(digits))
    wanted = loss(image_logits(patches), *batch[1:4], LATE.done)
    with torch.no_grad():
        seen = teacher(batch.images)
    distil = distillation_loss(experiment, digits, teacher)
    shown = torch.where(batch.pasted_share > 0.5, batch.pasted_labels, batch.labels)
    assert (shown != batch.labels).any()
    wanted |= distil(patches, seen, shown)  # for DKD: the class of the larger part
    assert list(terms) == list(wanted)
    assert all(torch.allclose(terms[name], wanted[name], rtol=1e-5) for name in wanted)
    assert len(terms) > len(loss(image_logits(patches), *batch[1:4], LATE.done))


@pytest.mark.parametrize("taught", [True, False])
def test_a_student_without_distillation_learns_by_its_own_losses(taught, digits, quick, batch):
    experiment = replace(quick, teacher_loss="cross_entropy", distillation="none")
    teacher = new_network(experiment, digits, "teacher").eval() if taught else None
    patches, terms = terms_of(experiment, digits, batch, teacher, "student")
    loss = ClassLoss("balanced_softmax", counts_of(digits))
    assert terms == loss(image_logits(patches), *batch[1:4], LATE.done)


def test_teacher_and_student_mix_as_they_are_told(digits, quick):
    plainly = replace(quick, teacher_mix="cutmix", student_mix="tail_cutmix")
    assert mixing_for(plainly, digits, "student", None).kind == "tail_cutmix"
    experiment = replace(quick, teacher_mix="cutmix", student_mix="local_crops")
    teacher = new_network(experiment, digits, "teacher")
    assert mixing_for(experiment, digits, "teacher", None).kind == "cutmix"
    assert mixing_for(experiment, digits, "student", teacher).kind == "local_crops"


def test_no_graph_is_kept_of_the_teacher(digits, quick, batch):
    experiment = replace(quick, distillation="kd")
    teacher, kept = new_network(experiment, digits, "teacher").eval(), []
    teacher.register_forward_hook(lambda network, images, said: kept.append(said.requires_grad))
    terms_of(experiment, digits, batch, teacher)
    assert kept == [False]


def test_another_seed_has_a_bank_of_its_own(digits, quick, batch, monkeypatch):
    """The same teacher, but other images: order and augmentation follow the seed."""
    teacher, folders = new_network(quick, digits, "teacher").eval(), []

    def bank(forward, folder, *lengths):
        folders.append(folder)
        return lambda images, epoch, index: forward(images)

    monkeypatch.setattr("ltkd.supervision.TeacherBank", bank)
    for seed, recipe in ((0, "kd"), (1, "kd"), (1, "kd"), (1, "shuffled"), (1, "uniform")):
        experiment = replace(quick, distillation=recipe, bank=1, seed=seed)
        terms_of(experiment, digits, batch, teacher)
    terms_of(replace(quick, distillation="kd", bank=1, student_epochs=2), digits, batch, teacher)
    assert folders[5] not in folders[:5]  # images grow at another epoch
    assert folders[0] != folders[1] == folders[2] == folders[4]
    assert folders[3] not in (folders[0], folders[1])  # it draws numbers between the batches


def test_of_a_crop_the_teacher_sees_the_whole_and_says_what_the_crop_shows(digits, quick):
    experiment = replace(quick, distillation="kd", student_mix="local_crops")
    images, labels = digits.train.images[::40], torch.from_numpy(digits.train.labels[::40])
    torch.manual_seed(1)
    batch = local_crops(torch.from_numpy(images), labels, torch.ones(len(labels)).bool())
    teacher = new_network(experiment, digits, "teacher").eval()
    patches, terms = terms_of(experiment, digits, batch, teacher)
    with torch.no_grad():
        seen = crop_patches(teacher(torch.from_numpy(images)), batch.corner)
    wanted = kd(image_logits(seen), image_logits(patches), temperature=2.0).mean()
    assert torch.allclose(terms["kd"], wanted, rtol=1e-5)


@pytest.mark.parametrize("recipe", ["kd", "image_and_patch"])
def test_the_teacher_does_not_change_while_it_teaches(recipe, digits, quick, batch):
    """Even one that is handed over in training mode: its BatchNorm would follow the batches."""
    experiment = replace(quick, distillation=recipe)
    teacher = new_network(experiment, digits, "teacher").train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    terms_of(experiment, digits, batch, teacher)
    assert not teacher.training
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_the_mean_posterior_is_that_of_all_training_images(digits, quick, monkeypatch):
    """Class by class, of patches without the prior, however few images are taken at a time."""
    experiment = replace(quick, distillation="image_and_patch")
    teacher = new_network(experiment, digits, "teacher").eval()
    with torch.no_grad():
        patches = teacher(torch.from_numpy(digits.train.images))
    prior = torch.log(counts_of(digits) / counts_of(digits).sum())
    posteriors = F.softmax(patches - prior, -1).mean(1)
    labels = torch.from_numpy(digits.train.labels)
    wanted = torch.stack([posteriors[labels == c].mean(0) for c in range(10)]).mean(0)
    for limit in (2**26, 2**14):
        monkeypatch.setattr("ltkd.supervision.POSTERIOR_BYTES", limit)
        found = distillation_loss(experiment, digits, teacher).mean_posterior
        assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("mix", ["tail_patches", "local_crops"])
def test_mixing_follows_the_grid_of_small_images(mix, digits, shorten, home):
    """Images of 24 pixels have 3 × 3 patches, where those of 32 have 4 × 4."""
    experiment = replace(Experiment.named("digits-lt"), student_mix=mix)
    experiment = shorten(experiment, 1, small=1.0)
    teacher = new_network(experiment, digits, "teacher")
    mixing = mixing_for(experiment, digits, "student", teacher.eval())
    assert [mixing.grid(side) for side in (32, 24)] == [4, 3]
    if mix == "tail_patches":
        black = [torch.zeros(2, 3, side, side, dtype=torch.uint8) for side in (32, 24)]
        assert [mixing.patch_weights(b).shape for b in black] == [(2, 16), (2, 9)]
    losses = trainer_for(experiment, digits, "student", teacher)._epoch(0)
    assert {"head", "tail", "class"} <= {name.partition("_")[2] or name for name in losses}
    assert all(0 <= loss < 100 for loss in losses.values())


def test_the_images_of_few_classes_are_not_held_at_once(digits, quick, monkeypatch):
    """Few classes have small posteriors; their images may be large."""
    held, predict = [], supervision.predict

    def watched(network, images, **options):
        held.append(images.nbytes)
        return predict(network, images, **options)

    monkeypatch.setattr(supervision, "predict", watched)
    monkeypatch.setattr(supervision, "POSTERIOR_BYTES", 2**16)
    experiment = replace(quick, distillation="image_and_patch")
    teacher = new_network(experiment, digits, "teacher").eval()
    distillation_loss(experiment, digits, teacher)
    first = digits.train.images[:1].nbytes  # asked for the number of patches
    assert sum(held) == first + digits.train.images.nbytes and max(held) <= 2**16


@pytest.mark.parametrize(("role", "mix"), [("teacher", "teacher_mix"), ("student", "student_mix")])
def test_pasted_labels_have_the_prior_that_the_mixing_says(role, mix, digits, quick, batch):
    """CMO's is that of all images; "tail_cutmix_prior" goes by how pasted images are drawn."""
    counts, found = counts_of(digits), {}
    losses = {"teacher_loss": "balanced_softmax", "distillation": "none"}
    for kind, pasted in (("tail_cutmix", counts), ("tail_cutmix_prior", torch.ones(10))):
        experiment = replace(quick, **losses, **{mix: kind})
        teacher = new_network(quick, digits, "teacher") if role == "student" else None
        patches, found[kind] = terms_of(experiment, digits, batch, teacher)
        loss = ClassLoss("balanced_softmax", counts, pasted_counts=pasted)
        assert found[kind] == loss(image_logits(patches), *batch[1:4], LATE.done)
    assert found["tail_cutmix"] != found["tail_cutmix_prior"]
