"""The panel's widgets driven in process: what is set, clicked and shown."""

import json
import re

import ipywidgets as widgets
import pytest
from panels import (
    MODELS,
    classify,
    every,
    expected,
    hidden,
    noise,
    png,
    texts,
    upload,
)

from ltkd import answers
from ltkd.classifier import Classifier
from ltkd.controls import ALL, COMPARE, FEW, MENDED, PREDEFINED, UPLOAD
from ltkd.images import read_image
from ltkd.panel import Panel


def test_opens_on_the_first_predefined_image_with_its_preview(panel):
    assert panel.picture.name.startswith("0-test-")
    assert panel.picture.name in panel.preview.value and "32 × 32 pixels" in panel.preview.value
    assert "true class: <b>0</b>" in panel.preview.value
    assert not panel.classify.disabled
    assert hidden(panel.upload_row) and not hidden(panel.thumbnails)
    assert panel.result.value == ""


def test_draws_nothing_into_output_widgets_and_has_a_logo(panel):
    kinds = every(panel.show())
    assert not [w for w in kinds if isinstance(w, widgets.Output)]
    logo = next(w for w in kinds if isinstance(w, widgets.Image))
    assert b"<svg" in bytes(logo.value)


def test_every_picture_has_a_text(panel):
    classify(panel, COMPARE)
    pictures = re.findall("<img [^>]*>", texts(panel))
    assert len(pictures) == 3  # the preview and the evidence of both
    assert all(re.search("alt='[^']{10,}'", picture) for picture in pictures)
    labels, tooltips = panel.thumbnails._options_labels, panel.thumbnails.tooltips
    assert len(labels) == len(set(labels)) == len(tooltips) == len(panel.pictures)
    assert labels[0] == "0 many\N{NON-BREAKING HYPHEN}shot" and "110 training images" in tooltips[0]


@pytest.mark.parametrize("model", MODELS)
def test_a_predefined_image_gets_the_class_and_probability_of_predict(panel, quick, model):
    panel.thumbnails.value = 3
    file = quick.image_folder / f"{panel.picture.name}.png"
    answer = classify(panel, model)
    for words in (model, *expected(panel, model, read_image(file.read_bytes()))):
        assert words in answer
    assert answer.count("<tr><td>") == 5
    said = panel.pair.classifier(MODELS[model]).predict(panel.picture.seen).class_name
    assert ("✓ right" if said == "3" else "✗ wrong, it is 3") in answer


def test_the_two_models_answer_for_themselves(panel):
    upload(panel, png(noise()))
    said = [classify(panel, model).partition("Answered")[0] for model in MODELS]
    assert said[0] != said[1]
    assert classify(panel, "Teacher Model").startswith(said[0])


def test_compare_shows_both_and_says_in_words_whether_they_differ(panel):
    both = {"Teacher Model", "Student Model"}
    for i, picture in enumerate(panel.pictures):
        panel.thumbnails.value = i
        answer = classify(panel, COMPARE)
        said = {
            panel.pair.classifier(role).predict(picture.seen).class_name for role in MODELS.values()
        }
        assert ("They agree" in answer) == (len(said) == 1)
        assert ("They differ" in answer) == (len(said) == 2)
        assert ("The true class is" in answer) == (picture.true_class is not None)
        assert all(f"<b>{model}</b>" in answer for model in both)


def test_the_answer_tells_training_count_and_group(panel, digits):
    answer = classify(panel, "Student Model")
    assert sum(f"<tr><td>{name}</td>" in answer for name in digits.class_names) == 5
    for name, count in zip(digits.class_names, digits.counts, strict=True):
        if f"<tr><td>{name}</td>" in answer:
            group = next(g for g in ("many", "medium", "few") if digits.groups[g][int(name)])
            row = answer.partition(f"<tr><td>{name}</td>")[2].partition("</tr>")[0]
            assert f">{count} <span" in row and f" {group}</span>" in row


def test_the_toggle_shows_one_way_to_choose_an_image(panel):
    panel.source.value = UPLOAD
    assert hidden(panel.filter) and not hidden(panel.upload_row)
    assert "No file yet." in panel.note.value
    assert panel.preview.value == "" and panel.classify.disabled
    panel.source.value = PREDEFINED
    assert hidden(panel.upload_row) and not hidden(panel.filter)
    assert panel.preview.value and not panel.classify.disabled


def test_the_filter_for_few_shot_classes(panel, digits):
    panel.filter.value = FEW
    few = [
        name for name, count in zip(digits.class_names, digits.counts, strict=True) if count < 20
    ]
    assert [picture.true_class for picture in panel.offered] == few
    panel.filter.value = ALL
    assert len(panel.offered) == 12  # one of each class and two photographs


def test_the_example_is_an_image_that_the_teacher_gets_wrong_and_the_student_right(evaluated):
    seen = []
    for _ in range(3):
        evaluated.example.click()
        seen.append(evaluated.picture.name)
        assert evaluated.model.value == COMPARE and evaluated.filter.value == MENDED
        assert "They differ" in evaluated.result.value
        assert "the Student is right" in evaluated.result.value
        words = evaluated.result.value  # the Teacher's come first
        assert words.index("✗ wrong") < words.index("✓ right")
    assert len(set(seen)) == 3
    assert {picture.true_class for picture in evaluated.offered} == {"9"}


def test_without_an_example_the_panel_says_so(panel):
    for picture in [p for p in panel.pictures if p.mended]:
        panel.pictures.remove(picture)
    panel.example.click()
    assert "None is known." in panel.note.value and panel.result.value == ""


CHANGES = {
    "model": lambda panel: setattr(panel.model, "value", "Student Model"),
    "predefined image": lambda panel: setattr(panel.thumbnails, "index", 2),
    "filter": lambda panel: setattr(panel.filter, "value", FEW),
    "source": lambda panel: setattr(panel.source, "value", UPLOAD),
    "upload": lambda panel: upload(panel, png(noise(seed=1))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_clears_the_old_result(panel, change):
    assert classify(panel, "Teacher Model") and panel.evidence.value
    CHANGES[change](panel)
    assert panel.result.value == panel.evidence.value == ""
    assert hidden(panel.chosen_class)


def test_the_evidence_is_drawn_for_the_predicted_or_a_chosen_class(panel):
    classify(panel, "Student Model")
    said = panel.predictions["student"]
    assert f"evidence for {said.class_name}</b>" in panel.evidence.value
    assert answers.EXPLANATION in panel.evidence.value
    panel.chosen_class.label = "4"
    assert "evidence for 4</b>" in panel.evidence.value
    total = said.patch_logits.mean((0, 1))[4]
    assert f"add up to its logit, {total:+.2f}" in panel.evidence.value
    listed = "; ".join(" ".join(f"{v:.2f}" for v in row) for row in said.evidence(4))
    assert listed in panel.evidence.value  # the text for those who do not see the picture


def test_the_distillation_weights_stand_beside_the_evidence(evaluated):
    classify(evaluated, "Student Model")
    teacher = evaluated.pair.classifier("teacher").predict(evaluated.picture.seen)
    weights = evaluated.pair.patch_weights(teacher)
    listed = "; ".join(" ".join(f"{v:.2f}" for v in row) for row in weights)
    assert f"Distillation weights of the patches, by row: {listed}" in evaluated.evidence.value


def test_without_results_the_panel_says_what_to_run(panel):
    assert "Not evaluated yet: run notebook 4" in panel.about.value
    classify(panel, "Student Model")
    assert "No distillation weights" in panel.evidence.value


def test_accuracies_and_classes_are_shown(evaluated, quick):
    summary = json.loads((quick.model_folder / "results.json").read_text())
    assert f"Teacher {summary['teacher']['all']:.1f}%" in evaluated.about.value
    assert f"Student {summary['student']['all']:.1f}%" in evaluated.about.value
    assert "0&nbsp;(110)" in evaluated.about.value and "640 test images" in evaluated.about.value


@pytest.mark.parametrize(("threshold", "noted"), [(0.0, False), (1.1, True)])
def test_low_confidence_is_noted_with_its_threshold_and_the_classes(evaluated, threshold, noted):
    evaluated.pair.results["student"]["low_confidence"] = threshold
    answer = classify(evaluated, "Student Model")
    assert ("Unsure" in answer) == noted
    assert ("95% of the validation images that it gets right reach 110.0%." in answer) == noted
    assert ("The 10 classes are: 0, 1, 2" in answer) == noted


def test_the_first_click_finds_everything_loaded_and_warm(models, quick, monkeypatch):
    asked, predict = [], Classifier.predict
    monkeypatch.setattr(
        Classifier, "predict", lambda self, image: asked.append(self) or predict(self, image)
    )
    panel = Panel(quick)
    assert {id(classifier) for classifier in asked} == set(map(id, panel.pair.loaded.values()))
    assert len(asked) == len(MODELS)
    monkeypatch.setattr(Classifier, "load", None)  # cannot be called
    assert "Answered in" in classify(panel, COMPARE)
