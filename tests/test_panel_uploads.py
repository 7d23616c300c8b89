"""What users upload to the panel: one file or several, sound, bad and hostile ones."""

import base64
import csv
import html
import io
import re

import pytest
import torch
from panels import (
    MODELS,
    choose,
    classify,
    expected,
    noise,
    png,
    texts,
    upload,
    upload_all,
)

from ltkd.checkpoints import save_checkpoint
from ltkd.controls import COMPARE, UPLOAD
from ltkd.images import MAX_BYTES
from ltkd.networks import ResNet
from ltkd.panel import Panel
from ltkd.uploader import Upload

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>.png"


def csv_rows(panel) -> list[dict[str, str]]:
    """The table that can be downloaded."""
    link = re.search("href='data:text/csv;base64,([^']*)'", panel.table.value)
    return list(csv.DictReader(io.StringIO(base64.b64decode(link[1]).decode("utf-8-sig"))))


def test_a_second_upload_replaces_the_first(panel):
    upload(panel, png(noise()))
    first = panel.preview.value
    upload(panel, png(noise(side=64, seed=1)), "other.png")
    assert panel.preview.value != first
    assert "other.png" in panel.preview.value and "64 × 64" in panel.preview.value


def test_several_uploads_give_a_table_and_its_csv(evaluated):
    sound = {f"{i}.png": png(noise(seed=i)) for i in range(3)}
    upload_all(evaluated, sound | {"bad.png": b"words", "=1+1.png": sound["0.png"]})
    assert evaluated.table.value == ""
    classify(evaluated, "Teacher Model")
    rows = csv_rows(evaluated)
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "bad.png", "'=1+1.png"]
    for i in range(3):
        for role in MODELS.values():
            said = evaluated.pair.classifier(role).predict(noise(seed=i))
            assert rows[i][role] == said.class_name
            assert float(rows[i][f"{role} probability"]) == pytest.approx(
                said.probability, abs=1e-4
            )
    assert "not an image" in rows[3]["remark"] and rows[3]["teacher"] == ""
    upload(evaluated, png(noise()))
    assert evaluated.table.value == ""  # of files that are gone


def test_a_bad_file_among_several_spoils_nothing(panel):
    upload_all(panel, {"bad.png": b"words", "good.png": png(noise())})
    assert panel.classify.disabled and "bad.png: This is not an image" in panel.preview.value
    choose(panel, "good.png")
    assert "probability" in classify(panel, "Student Model")


BAD = {
    "not an image": (b"These are only words.", "This is not an image that can be read"),
    "empty": (b"", "The file is empty."),
    "truncated": (png(noise())[:900], "This is not an image that can be read"),
    "too big": (bytes(MAX_BYTES + 1), "The file is larger than 8 MiB."),
    "unreadable": (None, "The file could not be read by the browser."),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_upload_gets_one_sentence_and_the_panel_goes_on(panel, kind):
    upload(panel, png(noise()))
    classify(panel, "Student Model")
    content, sentence = BAD[kind]
    upload(panel, content, "bad.png")
    assert sentence in panel.preview.value
    assert "Traceback" not in texts(panel) and "Error" not in texts(panel)
    assert panel.classify.disabled and panel.result.value == ""
    panel.model.value = "Teacher Model"
    assert sentence in panel.preview.value  # still said
    upload(panel, png(noise()))
    for words in expected(panel, "Teacher Model", noise()):
        assert words in classify(panel, "Teacher Model")


def test_a_file_that_the_browser_kept_is_refused_by_its_size(panel):
    panel.source.value = UPLOAD
    panel.upload.value = (Upload("large.png", 30 * 2**20, None),)
    assert "The file is larger than 8 MiB." in panel.preview.value


def test_files_arrive_one_by_one_and_a_new_choice_drops_the_rest(panel):
    def arrive(name: str, place: int, number: int, content: bytes) -> None:
        about = {"name": name, "size": len(content), "place": place, "number": number}
        panel.upload.receive(panel.upload, about, [memoryview(content)])

    panel.source.value = UPLOAD
    arrive("a.png", 0, 2, png(noise()))
    assert panel.offered == []  # not before all are there
    arrive("b.png", 1, 2, png(noise(seed=1)))
    assert [picture.name for picture in panel.offered] == ["a.png", "b.png"]
    arrive("c.png", 0, 3, png(noise()))
    arrive("d.png", 0, 1, png(noise()))
    assert [picture.name for picture in panel.offered] == ["d.png"]


@pytest.mark.parametrize("content", [png(noise()), b"words"], ids=["an image", "no image"])
def test_a_file_name_is_text_wherever_it_is_shown(panel, content):
    upload_all(panel, {EVIL: content, "good.png": png(noise())})
    classify(panel, "Student Model")
    choose(panel, "good.png")
    classify(panel, "Student Model")
    assert html.escape(EVIL) in panel.table.value
    choose(panel, EVIL)
    assert html.escape(EVIL) in panel.preview.value
    assert "<script" not in texts(panel) and "<img src=x" not in texts(panel)


def test_class_names_are_text_wherever_they_are_shown(panel, digits, quick):
    network = ResNet(10, depth=8, width=4, mean=(0.1, 0.2, 0.3))
    for role in MODELS.values():
        path = quick.model_file(role)
        save_checkpoint(path, network.eval(), digits, quick, role, {}, [])
        content = torch.load(path, weights_only=True)
        content["class_names"] = [f"<b>{name}</b>" for name in content["class_names"]]
        torch.save(content, path)
    panel = Panel(quick)
    answer = classify(panel, COMPARE)
    assert "<b>0</b>" not in texts(panel) and "&lt;b&gt;" in answer
    assert "&lt;b&gt;" in panel.evidence.value and "&lt;b&gt;" in panel.about.value


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("side", [20, 40, 600])
def test_an_upload_gets_the_class_and_probability_of_predict(panel, model, side):
    upload(panel, png(noise(side)))
    assert "<b>mine.png</b>" in panel.preview.value
    assert f"{side} × {side} pixels" in panel.preview.value
    for words in (model, *expected(panel, model, noise(side))):
        assert words in classify(panel, model)


def test_nothing_uploaded_is_written(panel, home):
    before = sorted(home.rglob("*"))
    upload_all(panel, {"a.png": png(noise()), "b.png": png(noise(seed=1))})
    classify(panel, COMPARE)
    assert sorted(home.rglob("*")) == before


def test_several_uploads_where_one_model_is_missing(models, quick):
    quick.model_file("teacher").unlink()
    panel = Panel(quick)
    upload_all(panel, {"a.png": png(noise()), "b.png": png(noise(seed=1))})
    classify(panel, "Student Model")
    assert (
        "Student Model" in panel.result.value and "There is no model file" not in panel.result.value
    )
    rows = csv_rows(panel)
    assert [row["teacher"] for row in rows] == ["", ""] and all(row["student"] for row in rows)
