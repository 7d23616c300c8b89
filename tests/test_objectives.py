"""The recipes behind one interface: what is summed, weighed, and corrected for the prior."""

import json
import math
from dataclasses import replace

import pytest
import torch

from ltkd import distillation, objectives
from ltkd.experiments import Experiment
from ltkd.losses import CLASS_LOSSES, balanced_softmax
from ltkd.objectives import RECIPES, DistillationLoss, Recipe, mean_posterior, teacher_bias
from ltkd.places import PROJECT

COUNTS = torch.tensor([200, 100, 50, 20, 10, 5])
HEAD = torch.tensor([True, True, False, False, False, False])
LABELS = torch.tensor([0, 1, 5])
PRIOR = torch.log(COUNTS / COUNTS.sum())
MEAN = torch.full((6,), 1 / 6)
BASELINES = ("kd", "dkd", "bkd", "dive", "ltkd")
METHOD = [name for name in RECIPES if name not in (*BASELINES, "none")]


def logits_of(patches=4, seed=0):
    """Student's and teacher's patch logits, (3, P, 6)."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 3, patches, 6, generator=generator)
    return student.requires_grad_(), 2 * teacher


def terms_of(recipe, student, teacher, bias=None):
    torch.manual_seed(0)  # "shuffled" draws an order
    return DistillationLoss(recipe, COUNTS, HEAD, bias, MEAN)(student, teacher, LABELS)


def values_of(*args, **settings):
    return {name: term.item() for name, term in terms_of(*args, **settings).items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_gives_finite_named_terms(recipe):
    terms = terms_of(recipe, *logits_of())
    assert bool(terms) == (recipe != "none")
    for name, term in terms.items():
        assert isinstance(name, str) and term.shape == () and term.isfinite()
    assert recipe == "none" or sum(terms.values()) > 0


@pytest.mark.parametrize("recipe", ["kd", "dkd", *METHOD])
def test_a_student_that_agrees_has_nothing_to_learn(recipe):
    _, teacher = logits_of()
    for value in values_of(recipe, teacher.clone(), teacher).values():
        assert value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("recipe", ["patch_kd", "image_and_patch", "patch_ambiguity"])
def test_many_classes_are_taken_a_few_images_at_a_time(recipe, monkeypatch):
    results, image = [], 4 * 4 * 6  # bytes of an image's patch logits
    for limit in objectives.PATCH_BYTES, 1, 2 * image:  # all three images, one by one, 2 + 1
        monkeypatch.setattr(objectives, "PATCH_BYTES", limit)
        student, teacher = logits_of()
        terms = terms_of(recipe, student, teacher)
        sum(terms.values()).backward()
        results.append(([t.item() for t in terms.values()], student.grad))
    for values, gradient in results[1:]:
        assert values == pytest.approx(results[0][0], rel=1e-5)
        assert torch.allclose(gradient, results[0][1], atol=1e-7)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "none"])
def test_gradient_reaches_the_student_alone(recipe):
    student, teacher = logits_of()
    teacher.requires_grad_()
    sum(terms_of(recipe, student, teacher).values()).backward()
    assert teacher.grad is None
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0


@pytest.mark.parametrize("image, patch", [("kd", "patch_kd"), ("decoupled", "patch_decoupled")])
def test_one_patch_is_the_image(image, patch):
    whole, cut = (values_of(recipe, *logits_of(patches=1)) for recipe in (image, patch))
    assert cut == pytest.approx({f"patch_{name}": value for name, value in whole.items()})


@pytest.mark.parametrize("recipe", ["kd", "decoupled"])
def test_image_terms_see_the_mean_of_the_patches(recipe):
    student, teacher = logits_of()
    pooled = (student.mean(1, keepdim=True), teacher.mean(1, keepdim=True))
    assert values_of(recipe, student, teacher) == pytest.approx(values_of(recipe, *pooled))


def test_uniform_weights_are_no_weights():
    student, teacher = logits_of()
    found = values_of("patch_decoupled", student, teacher)
    plain = distillation.decoupled(teacher, student, HEAD)
    expected = {f"patch_{name}": values.mean().item() for name, values in plain.items()}
    assert found == pytest.approx(expected)


def test_no_two_recipes_are_the_same():
    totals = {name: sum(values_of(name, *logits_of(), bias=PRIOR).values()) for name in RECIPES}
    assert len({round(value, 5) for value in totals.values()}) == len(RECIPES)


def test_image_and_patch_terms_carry_their_weights():
    student, teacher = logits_of()
    both = Recipe("kd", "kd", image_weight=2.0, patch_weight=0.3)
    image, patch = (values_of(r, student, teacher) for r in ("kd", "patch_kd"))
    expected = {"kd": 2 * image["kd"], "patch_kd": 0.3 * patch["patch_kd"]}
    assert values_of(both, student, teacher) == pytest.approx(expected)


def test_alpha_and_betas_scale_their_own_terms():
    student, teacher = logits_of()
    scaled = Recipe("decoupled", alpha=0.5, beta_head=2.0, beta_tail=3.0)
    plain, found = (values_of(r, student, teacher) for r in ("decoupled", scaled))
    factors = {"group": 0.5, "head": 2.0, "tail": 3.0}
    assert found == pytest.approx({name: factors[name] * plain[name] for name in plain})


def test_each_group_has_its_own_temperature():
    student, teacher = (patches[:, :1] for patches in logits_of())
    own = Recipe("decoupled", temperature=2.0, head_temperature=1.0, tail_temperature=3.0)
    arguments = teacher[:, 0], student[:, 0], HEAD, 1.0, 1.0, 1.0
    found = distillation.decoupled(*arguments, 2.0, head_temperature=1.0, tail_temperature=3.0)
    wanted = {name: values.mean().item() for name, values in found.items()}
    assert values_of(own, student, teacher) == pytest.approx(wanted)
    assert values_of("decoupled", student, teacher) != pytest.approx(wanted, rel=1e-2)


def test_only_losses_without_the_prior_leave_it_in_the_teacher():
    for name in CLASS_LOSSES:
        experiment = replace(Experiment.named("cifar10-lt-quick"), teacher_loss=name)
        biased = name in ("cross_entropy", "focal")
        wanted = PRIOR if biased else torch.zeros(6)
        assert torch.allclose(teacher_bias(experiment, COUNTS), wanted), name


@pytest.mark.parametrize("recipe", METHOD)
def test_the_method_takes_the_prior_out_of_the_teacher(recipe):
    student, teacher = logits_of()
    biased = values_of(recipe, student, teacher + PRIOR, bias=PRIOR)
    assert biased == pytest.approx(values_of(recipe, student, teacher), rel=1e-4)
    assert biased != pytest.approx(values_of(recipe, student, teacher + PRIOR), rel=1e-2)


@pytest.mark.parametrize("recipe", BASELINES)
def test_the_baselines_take_the_teacher_as_it_is(recipe):
    student, teacher = logits_of()
    assert values_of(recipe, student, teacher, bias=PRIOR) == values_of(recipe, student, teacher)


def test_baselines_are_the_published_functions():
    student, teacher = logits_of()
    s, z = student.mean(1), teacher.mean(1)
    dkd = distillation.dkd(z, s, LABELS, temperature=4.0).mean().item()
    dive = distillation.dive(z, s).mean().item()
    thirds = [torch.tensor([c // 2 == third for c in range(6)]) for third in range(3)]
    ltkd = distillation.ltkd(z, s, thirds)
    assert values_of("dkd", student, teacher) == pytest.approx({"dkd": dkd})
    assert values_of("dive", student, teacher) == pytest.approx({"dive": dive})
    expected = {name: values.mean().item() for name, values in ltkd.items()}
    assert values_of("ltkd", student, teacher) == pytest.approx(expected)


TWO = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0]]])  # posteriors (3/4, 1/4) and (1/2, 1/2)


def two_patches(**settings):
    """One image with two patches and two classes, one of them head."""
    recipe = Recipe(patch="kd", temperature=1.0, **settings)
    head, mean = torch.tensor([True, False]), torch.tensor([0.5, 0.5])
    return DistillationLoss(recipe, torch.tensor([9, 1]), head, mean_posterior=mean)


def test_weights_of_two_patches_by_hand():
    # I = (KL, 0): all weight, 2, on the first. s = (3/4, 1), so 1 − s = (1/4, 0): the same.
    for scores in ("informativeness", "ambiguity"):
        weights = two_patches(weights=scores).patch_weights(TWO)
        assert weights[0].tolist() == pytest.approx([2, 0], abs=1e-4)
    inverted = two_patches(weights="ambiguity", control="inverted").patch_weights(TWO)
    assert inverted[0].tolist() == pytest.approx([0, 2], abs=1e-4)
    assert two_patches().patch_weights(TWO).tolist() == [[1, 1]]


def test_the_two_scores_differ_by_hand():
    # posteriors (3/4, 1/4), (1/2, 1/2), (9/10, 1/10)
    teacher = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0], [math.log(9), 0.0]]])
    told = [0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0, 0.9 * math.log(1.8) - 0.1 * math.log(5)]
    sure = [0.25, 0, 0.64]  # 1 − 4 h (1 − h)
    for name, scores in (("informativeness", told), ("ambiguity", sure)):
        weights = two_patches(weights=name).patch_weights(teacher)[0].tolist()
        assert weights == pytest.approx([3 * score / sum(scores) for score in scores], abs=1e-4)


def test_weights_scale_the_terms_by_hand():
    # Student uniform on the first patch and (1/4, 3/4) on the second. Divergences of the patches:
    first = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    second = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    student = torch.tensor([[[0.0, 0.0], [0.0, math.log(3)]]])
    label = torch.tensor([0])
    cases = {"informativeness": None, "ambiguity": "inverted", "uniform": None}
    expected = {"informativeness": first, "ambiguity": second, "uniform": (first + second) / 2}
    for weights, control in cases.items():
        loss = two_patches(weights=weights, control=control)
        found = loss(student, TWO, label)["patch_kd"].item()
        assert found == pytest.approx(expected[weights], rel=1e-4)


def test_shuffled_keeps_the_weights_of_an_image():
    _, teacher = logits_of(patches=16)
    torch.manual_seed(0)
    plain, shuffled = (
        DistillationLoss(recipe, COUNTS, HEAD, None, MEAN).patch_weights(teacher)
        for recipe in ("image_and_patch", "shuffled")
    )
    assert torch.equal(plain.sort(1).values, shuffled.sort(1).values)
    assert not torch.equal(plain, shuffled)


def test_mean_posterior_is_balanced_over_classes():
    # Class 0 has two images with patch means 0.8 and 0.6: 0.7. Class 1 has one: 0.1. Mean 0.4.
    first = [[[0.9, 0.1], [0.7, 0.3]], [[0.6, 0.4], [0.6, 0.4]], [[0.2, 0.8], [0.0, 1.0]]]
    found = mean_posterior(torch.tensor(first), torch.tensor([0, 0, 1]), torch.tensor([2, 1]))
    assert found.tolist() == pytest.approx([0.4, 0.6])
    again = torch.tensor(first + first[2:] * 5)  # five more images of class 1 change nothing
    found = mean_posterior(again, torch.tensor([0, 0, 1, 1, 1, 1, 1, 1]), torch.tensor([2, 6]))
    assert found.tolist() == pytest.approx([0.4, 0.6])


def test_mean_posterior_leaves_out_classes_without_images():
    found = mean_posterior(
        torch.tensor([[[0.2, 0.3, 0.5]]]), torch.tensor([2]), torch.tensor([0, 0, 1])
    )
    assert found.tolist() == pytest.approx([0.2, 0.3, 0.5])


def test_two_classes_are_enough_for_every_recipe():
    counts, head = torch.tensor([90, 10]), torch.tensor([True, False])
    student, teacher = (z[..., :2] for z in logits_of())
    for recipe in RECIPES:
        loss = DistillationLoss(recipe, counts, head, None, torch.tensor([0.5, 0.5]))
        terms = loss(student, teacher, torch.tensor([0, 1, 1]))
        assert all(abs(term.item()) < 1e3 for term in terms.values()), recipe


def test_unknown_recipe_lists_the_known():
    with pytest.raises(ValueError, match="'patch_magic'") as error:
        DistillationLoss("patch_magic", COUNTS, HEAD)
    assert all(name in str(error.value) for name in RECIPES)


@pytest.mark.parametrize("recipe", ["patch_informativeness", "image_and_patch", "shuffled"])
def test_informativeness_needs_the_mean_posterior(recipe):
    with pytest.raises(ValueError, match="mean_posterior"):
        DistillationLoss(recipe, COUNTS, HEAD)


@pytest.mark.parametrize("field", ["image", "patch", "weights", "control"])
def test_a_misspelt_recipe_is_refused(field):
    with pytest.raises(
        ValueError, match=f"Unknown {field} of a recipe 'informative'; choose one of"
    ):
        Recipe(**{field: "informative"})


@pytest.mark.parametrize("field", ["alpha", "beta_tail", "head_temperature"])
def test_a_field_that_would_change_nothing_is_refused(field):
    assert Recipe("decoupled", **{field: 3.0}) and Recipe("kd", "decoupled", **{field: 3.0})
    with pytest.raises(ValueError, match=f"{field} of a recipe would change nothing"):
        Recipe("dkd", **{field: 3.0})


@pytest.mark.parametrize("change", [{"weights": "ambiguity"}, {"control": "shuffled"}])
def test_patch_weights_without_patches_are_refused(change):
    assert Recipe("kd", "kd", **change)
    with pytest.raises(ValueError, match=f"{next(iter(change))} of a recipe would change nothing"):
        Recipe("kd", **change)


@pytest.mark.parametrize("patches", [1, 4])
def test_patches_are_compared_with_as_many(patches):
    loss = DistillationLoss("patch_kd", COUNTS, HEAD)
    student, labels = torch.zeros(2, patches, len(COUNTS)), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=f"logits of {patches} patches an image and the teacher"):
        loss(student, torch.zeros(2, 9, len(COUNTS)), labels)


@pytest.mark.parametrize("size", [1, 300])  # an untrained ResNet-32 has logits of a thousand
def test_the_loss_that_notebook_3_writes_out_is_the_projects(size):
    """Its cell is taken from the notebook; there the networks of one experiment are compared."""
    cells = json.loads((PROJECT / "notebooks/03_student.ipynb").read_text())["cells"]
    [source] = [s for s in map("".join, (c["source"] for c in cells)) if "def student_loss" in s]
    names = {"torch": torch, "F": torch.nn.functional, "is_head": HEAD}
    exec(source, names)
    student, teacher = (size * logits.detach() for logits in logits_of())
    mean = torch.softmax(torch.arange(6) / 2, 0)
    wanted = balanced_softmax(student.mean(1), LABELS, COUNTS).mean()
    loss = DistillationLoss("image_and_patch", COUNTS, HEAD, PRIOR, mean)
    wanted = wanted + sum(loss(student, teacher, LABELS).values())
    found = names["student_loss"](teacher, student, LABELS, COUNTS / COUNTS.sum(), PRIOR, mean)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)
