"""The notebooks as reading matter: their shape, their width, their parts."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CHAPTERS = sorted(NOTEBOOKS.glob("0*.ipynb"))
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("0*.ipynb"))
SLIDES = NOTEBOOKS / "slides.json"
WIDTH = 88  # characters
HEIGHT = {"code": 32, "markdown": 40}  # lines
WIDGET = "application/vnd.jupyter.widget-view+json"


def cells(notebook: Path, kind: str | None = None) -> list[dict]:
    found = json.loads(notebook.read_text())["cells"]
    return [c for c in found if kind in (None, c["cell_type"])]


def text(cell: dict) -> str:
    return "".join(cell["source"])


def prose(notebook: Path) -> str:
    return "\n".join(text(c) for c in cells(notebook, "markdown"))


def exercises(notebook: Path) -> list[str]:
    after = prose(notebook).partition("## Exercises")[2]
    return re.findall(r"^\d\. \*(Easy|Medium|Medium: extend it|Open)\.\*", after, re.M)


def slides(notebook: Path) -> list[list[dict]]:
    """The cells of every slide, as nbconvert deals them out."""
    found: list[list[dict]] = []
    for cell in cells(notebook):
        kind = cell["metadata"].get("slideshow", {}).get("slide_type")
        if kind in ("slide", "subslide"):
            found.append([])
        if kind != "skip":
            found[-1].append(cell)
    return found


def height(cell: dict) -> int:
    """About how many pixels high a cell is on a slide 1280 wide, to a tenth of what is measured."""
    if cell["cell_type"] == "markdown":
        return 30 + sum(map(block_height, re.split(r"\n\s*\n", text(cell))))
    total = 28 + 24 * len(cell["source"])
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            with Image.open(io.BytesIO(base64.b64decode("".join(data["image/png"])))) as picture:
                total += 25 + picture.height
        else:
            shown = "".join(output.get("text", data.get("text/plain", "")))
            total += 23 + 24 * len(shown.splitlines())
    return total


def block_height(block: str) -> int:
    """The same for a paragraph, a list, a table, a formula or a picture in Markdown."""
    if block.startswith("|"):
        return 20 + 34 * block.count("\n")
    if block.startswith("!["):
        return 360
    if block.startswith("#"):
        return 75
    if "$$" in block:
        return 85
    items = re.split(r"\n(?=\d\.|- )", block)
    return 20 + sum(26 * -(-len(item) // 115) for item in items)


def test_every_chapter_has_its_solutions():
    assert [s.name for s in SOLUTIONS] == [c.name for c in CHAPTERS]


@pytest.mark.parametrize(
    "notebook", CHAPTERS + SOLUTIONS, ids=lambda n: f"{n.parent.name}/{n.stem}"
)
class TestShape:
    def test_no_line_is_wider_than_a_column(self, notebook):
        lines = [line for c in cells(notebook) for line in text(c).split("\n")]
        assert not [line for line in lines if len(line) > WIDTH]

    def test_no_cell_is_longer_than_a_screen(self, notebook):
        long = [c for c in cells(notebook) if len(c["source"]) > HEIGHT[c["cell_type"]]]
        assert not [c["id"] for c in long]

    def test_figures_are_png_and_no_output_needs_a_kernel(self, notebook):
        kinds = {
            kind
            for c in cells(notebook, "code")
            for output in c["outputs"]
            for kind in output.get("data", {})
        }
        assert kinds <= {"text/plain", "image/png"}

    def test_every_slider_shows_a_still_figure(self, notebook):
        for cell in cells(notebook, "code"):
            if re.search(r"^Explorer\(", text(cell), re.M):
                assert any("image/png" in o.get("data", {}) for o in cell["outputs"]), text(cell)

    def test_can_be_shown_as_slides(self, notebook):
        kinds = [c["metadata"].get("slideshow", {}).get("slide_type", "-") for c in cells(notebook)]
        assert kinds[0] == "slide" and kinds.count("slide") >= 4
        headings = [text(c).startswith("#") for c in cells(notebook, "markdown")]
        assert headings[0]

    def test_no_slide_is_longer_than_the_screen(self, notebook):
        screen = int(json.loads(SLIDES.read_text())["SlidesExporter"]["reveal_height"])
        for slide in slides(notebook):
            assert sum(map(height, slide)) < screen, text(slide[0])[:60]

    def test_links_lead_somewhere(self, notebook):
        for target in re.findall(r"\]\(([^)#]+)\)", prose(notebook)):
            assert target.startswith("http") or (notebook.parent / target).exists(), target

    def test_pictures_in_the_text_have_a_description(self, notebook):
        pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", prose(notebook))
        for alt, place in pictures:
            assert len(alt) > 40, place
            with Image.open(notebook.parent / place) as picture:
                assert picture.format == "PNG"


@pytest.mark.parametrize("notebook", CHAPTERS, ids=lambda n: n.stem)
class TestChapter:
    def test_opening_says_what_it_is_about(self, notebook):
        opening = prose(notebook).partition("\n## ")[0]
        for part in ("![", "**You will learn**", "**You need**", "**Run time**", "**The series**"):
            assert part in opening, part
        assert opening.index("![") < 400  # in the first screen

    def test_results_are_explained(self, notebook):
        assert prose(notebook).count("**What you should see**") >= 2
        assert "**Why" in prose(notebook)

    def test_has_a_summary_and_exercises_from_easy_to_open(self, notebook):
        assert "## Summary" in prose(notebook)
        levels = [level.partition(":")[0] for level in exercises(notebook)]
        assert 4 <= len(levels) <= 6
        assert levels == sorted(levels, key=["Easy", "Medium", "Open"].index)
        assert levels[0] == "Easy" and levels[-1] == "Open"

    def test_every_exercise_is_answered(self, notebook):
        answers = prose(NOTEBOOKS / "solutions" / notebook.name)
        numbers = [int(n) for n in re.findall(r"^## (\d) ", answers, re.M)]
        assert numbers == list(range(1, len(exercises(notebook)) + 1))


def test_there_are_four_ways_to_extend():
    assert sum(exercises(n).count("Medium: extend it") for n in CHAPTERS) == 4
