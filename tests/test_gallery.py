"""The pictures that the panel offers, and how evidence is drawn over them."""

from dataclasses import replace

import numpy as np
import pytest
from panels import METRICS
from PIL import Image

from ltkd import gallery as gallery_module
from ltkd.checkpoints import load_checkpoint, save_checkpoint
from ltkd.classifier import ModelPair
from ltkd.datasets import Split, build
from ltkd.files import write_json
from ltkd.gallery import PREVIEW, gallery, mended_test_images, read_picture, save_predefined_images
from ltkd.images import png_bytes
from ltkd.overlays import ABOVE, BELOW, overlay
from ltkd.thumbnails import captions, style


def colour(side: int, value=(9, 99, 199)) -> Image.Image:
    return Image.new("RGB", (side, side), value)


def test_mended_images_of_the_rarest_classes_come_first(pair, digits, quick):
    rows = [int(r) for c in (0, 5, 9) for r in np.flatnonzero(digits.test.labels == c)[:4]]
    write_json(quick.results_file, pair.results | {"comparison": {"mended": rows}})
    found = mended_test_images(ModelPair.of(quick), most=7)
    assert [p.true_class for p in found] == ["9"] * 3 + ["5"] * 3 + ["0"]


def test_mended_test_images_are_those_of_the_evaluation(pair, digits):
    mended = mended_test_images(pair)
    assert len(mended) == 3 and {picture.true_class for picture in mended} == {"9"}
    for picture in mended:
        row = digits.test.sources.tolist().index(int(picture.name.removeprefix("9-test-")))
        assert row in pair.results["comparison"]["mended"]
        assert (np.asarray(picture.seen).transpose(2, 0, 1) == digits.test.images[row]).all()


def test_no_mended_images_where_data_or_results_are_missing(pair, quick):
    quick.built_file.unlink()
    assert mended_test_images(pair) == []
    build(quick)
    write_json(quick.results_file, pair.results | {"data": "other images"})
    assert mended_test_images(ModelPair.of(quick)) == []
    quick.results_file.unlink()
    assert mended_test_images(ModelPair.of(quick)) == []


def test_predefined_images_are_exchanged_where_the_data_have_others(digits, quick):
    folder = save_predefined_images(quick, digits)
    own = folder / "3-test-of-my-own.png"
    own.write_bytes(png_bytes(colour(8)))
    before = {file.name for file in folder.glob("*.png")}
    other = replace(digits, test=Split(*(part[::-1] for part in digits.test)))
    save_predefined_images(quick, other)  # the same images in another order
    assert {file.name for file in folder.glob("*.png")} == before
    other = replace(other, train=Split(*(part[:-1] for part in digits.train)))
    save_predefined_images(quick, other)
    now = {file.name for file in folder.glob("*.png")}
    assert now & before == {own.name} and len(now) == len(before)


def test_predefined_images_that_were_interrupted_are_written_again(digits, quick, monkeypatch):
    folder, whole = quick.image_folder, gallery_module.write_atomically
    written = []

    def stopped(path, write):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(whole(path, write))

    with monkeypatch.context() as patch:
        patch.setattr(gallery_module, "write_atomically", stopped)
        with pytest.raises(KeyboardInterrupt):
            save_predefined_images(quick, digits)
    assert len(list(folder.glob("*.png"))) == 3
    save_predefined_images(quick, digits)
    assert len(list(folder.glob("*.png"))) == 10


def test_only_what_both_models_confirm_is_marked(pair, digits, quick):
    save_predefined_images(quick, digits)
    pictures = gallery(pair)
    assert {p.true_class for p in pictures if p.mended} == {"9"}
    assert all(p.mended for p in pictures if p.true_class == "9")
    network, _ = load_checkpoint(quick.model_file("student"))  # since then, a student was trained
    network.classifier.bias.data[:] = 0
    network.classifier.bias.data[0] = 1000
    save_checkpoint(quick.model_file("student"), network, digits, quick, "student", METRICS, [])
    assert not any(p.mended for p in gallery(ModelPair.of(quick)))


def test_known_classes_come_first_largest_first(pair, digits, quick):
    save_predefined_images(quick, digits, most=4)
    (quick.image_folder / "my cat.jpg").write_bytes(png_bytes(colour(50)))
    (quick.image_folder / "0.png").write_bytes(png_bytes(colour(50)))  # not said to be of class 0
    classes = [p.true_class for p in gallery(pair)]
    assert classes == ["0", "3", "6", "9", "9", "9", None, None, None, None]


def test_class_names_that_no_file_can_have(pair, digits, quick):
    classifier = pair.any_classifier()
    classifier.class_names[4] = "t-shirt / top"
    quick.image_folder.mkdir(parents=True)
    (quick.image_folder / "t-shirt_top-test-7.png").write_bytes(png_bytes(colour(50)))
    assert gallery(pair)[0].true_class == "t-shirt / top"


def test_a_picture_keeps_what_the_models_see_and_a_small_preview(pair):
    picture = read_picture("big", png_bytes(colour(1500)), pair)
    assert picture.size == (1500, 1500)
    assert picture.preview.size == (PREVIEW, PREVIEW)
    assert picture.seen.size == (32, 32)


def test_an_upload_that_is_too_large_or_did_not_come_keeps_its_reason(pair):
    small = png_bytes(colour(40))
    assert read_picture("x", small, pair, size=8 * 2**20).error == ""
    large = read_picture("x", small, pair, size=8 * 2**20 + 1)
    assert large.error == "The file is larger than 8 MiB."
    assert "could not be read by the browser" in read_picture("x", None, pair, size=9).error


def test_captions_differ_and_tell_class_group_and_count(pair, digits, quick):
    save_predefined_images(quick, digits)
    pictures = gallery(pair)
    texts, tooltips = captions(pictures, pair)
    assert len(set(texts)) == len(pictures)
    few = "9 few\N{NON-BREAKING HYPHEN}shot"
    assert [t for t in texts if t.startswith("9")] == [few, f"{few} (2)", f"{few} (3)"]
    assert any("true class 9, 2 training images" in tooltip for tooltip in tooltips)


def test_captions_differ_whatever_the_files_are_called(pair):
    content = png_bytes(colour(40))
    pictures = [read_picture(name, content, pair) for name in ("a", "a (2)", "a", "a")]
    assert captions(pictures, pair)[0] == ["a", "a (2)", "a (3)", "a (4)"]


def test_names_of_any_bytes_can_be_shown(pair):
    assert read_picture("caf\udce9", png_bytes(colour(40)), pair).name == "caf�"


def test_thumbnails_have_a_rule_each_but_for_what_cannot_be_shown(pair):
    good, bad = (read_picture("x", c, pair) for c in (png_bytes(colour(40)), b"words"))
    rules = style([good, bad, good], ".mine")
    assert rules.count("background-image") == 2
    assert ".mine button:nth-of-type(1)" in rules and ".mine button:nth-of-type(3)" in rules


def test_the_overlay_tints_each_cell_by_its_value_and_its_side():
    values = np.array([[1.0, -1.0], [0.0, 0.5]])
    found = overlay(colour(8, (0, 0, 0)), values, -1, 0, 1, side=64)
    corners = [found.getpixel(at) for at in ((1, 1), (62, 1), (1, 62), (62, 62))]
    wanted = [np.multiply(0.7, ABOVE), np.multiply(0.7, BELOW), (0, 0, 0), np.multiply(0.35, ABOVE)]
    np.testing.assert_allclose(corners, wanted, atol=3)


def test_the_overlay_writes_the_numbers():
    """So that no colour is needed: equal tints, different numbers, different pictures."""
    small, large = np.full((2, 2), 2.0), np.full((2, 2), 3.0)
    assert overlay(colour(8), small, -2, 0, 2) != overlay(colour(8), large, -3, 0, 3)


@pytest.mark.parametrize(
    ("names", "file", "true"),
    [
        (["C#", "C++"], "C_-test-7.png", None),  # which of the two it is nobody can tell
        (["cat", "dog"], "cat-test-cat-test-1_jpg.png", "cat"),
        (["a-test-b", "dog"], "a-test-b-test-1.png", "a-test-b"),
    ],
)
def test_the_class_in_a_file_name(pair, quick, names, file, true):
    pair.any_classifier().class_names[4:6] = names
    quick.image_folder.mkdir(parents=True)
    (quick.image_folder / file).write_bytes(png_bytes(colour(50)))
    (picture,) = (p for p in gallery(pair) if p.name == file.removesuffix(".png"))
    assert picture.true_class == true
