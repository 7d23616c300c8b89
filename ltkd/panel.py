"""The classifier panel: a thin shell of widgets over classifier.py, gallery.py and answers.py.

It sets the values of widgets and draws nothing into Output widgets, so it looks the same in
JupyterLab and in Voilà, and an error shows in the panel, not in a log. Pictures are in HTML
widgets, since an Image widget has no text for those who cannot see it.
"""

import time
from collections.abc import Callable
from functools import wraps

import ipywidgets as widgets
from PIL import Image

from . import answers
from .checkpoints import CheckpointError
from .classifier import ModelPair, Prediction, model_folders
from .controls import COMPARE, FEW, MENDED, MODELS, PREDEFINED, UPLOAD, Controls
from .experiments import Experiment
from .files import shown
from .gallery import MOST, Picture, gallery, read_picture
from .images import predefined_images
from .thumbnails import captions, style


def guarded(callback: Callable) -> Callable:
    """An error in a callback shows nowhere unless the panel says it."""

    @wraps(callback)
    def safe(self: "Panel", change: object = None) -> None:
        try:
            callback(self)
        except CheckpointError as error:
            self.result.value = answers.failure(str(error))
        except Exception as error:
            self.result.value = answers.failure(f"That did not work ({error}).")

    return safe


class Panel(Controls):
    """Choose models, choose or upload an image, see it, read the class and why.

    Parameters
    ----------
    experiment : whose models are in saved_model/<name>/ and whose predefined images are in
        `experiment.image_folder`; other pairs in saved_model/ can be chosen in the panel

    >>> Panel(Experiment.named("digits-lt")).show()  # doctest: +SKIP
    """

    def __init__(self, experiment: Experiment):
        self.experiment, self.pair = experiment, ModelPair.of(experiment)
        self.pictures: list[Picture] = []  # the gallery
        self.uploads: list[Picture] = []
        self.offered: list[Picture] = []  # what the thumbnails show now
        self.predictions: dict[str, Prediction] = {}  # of the chosen picture, by role
        folder = self.pair.files["student"].parent
        super().__init__([folder, *(f for f in model_folders() if f != folder)])
        self._observe()
        self._use_pair()

    def show(self) -> widgets.Widget:
        """The widget to display."""
        return self.root

    @property
    def picture(self) -> Picture | None:
        """The chosen picture; it may be one that cannot be used."""
        return None if self.thumbnails.value is None else self.offered[self.thumbnails.value]

    def _observe(self) -> None:
        self.models.observe(self._choose_pair, "value")
        self.model.observe(self._clear, "value")
        for chooser in self.source, self.filter:
            chooser.observe(self._offer, "value")
        self.upload.observe(self._read_uploads, "value")
        self.thumbnails.observe(self._choose_picture, "value")
        self.chosen_class.observe(self._explain, "value")
        self.classify.on_click(self._on_classify)
        self.example.on_click(self._show_example)

    @guarded
    def _choose_pair(self) -> None:
        """Use the chosen pair; where it is unusable, say so and go back to the one before."""
        own, before = self.models.index == 0, self.pair.files["student"].parent
        try:
            self.pair = ModelPair.of(self.experiment) if own else ModelPair.at(self.models.value)
        except CheckpointError:
            self.models.value = before
            raise
        self._use_pair()

    @guarded
    def _use_pair(self) -> None:
        """Load the pair, its pictures and all that a first click would otherwise wait for."""
        self.pictures, self.uploads, self.about.value = [], [], ""
        try:
            names = self.pair.any_classifier().class_names
            self.about.value = answers.about(self.pair)
            self.chosen_class.options = [
                ("the predicted class", None), *((name, i) for i, name in enumerate(names))
            ]  # fmt: skip
            self.chosen_class.index = 0
            self.pictures = gallery(self.pair)
            self._warm_up()
        finally:
            self._read_uploads()

    def _warm_up(self) -> None:
        seen = next(p.seen for p in self.pictures if p.seen)
        roles = [role for role in answers.TITLES if self.pair.available(role)]
        said = {role: self.pair.classifier(role).predict(seen) for role in roles}
        answers.evidence(self.pair, seen, said, roles, None)

    @guarded
    def _read_uploads(self) -> None:
        self.table.value = ""
        self.uploads = [
            read_picture(file.name, file.content, self.pair, file.size)
            for file in self.upload.value
        ]
        self._offer()

    @guarded
    def _offer(self) -> None:
        """Show the thumbnails that source and filter ask for."""
        uploading = self.source.value == UPLOAD
        self.upload_row.layout.display = "" if uploading else "none"
        self.filter.layout.display = "none" if uploading else ""
        self.table.layout.display = "" if uploading else "none"
        self.offered = self.uploads if uploading else self._filtered()
        self.note.value = self._note(uploading)
        self.note.layout.display = "" if self.note.value else "none"
        self.thumbnails.layout.display = "" if self.offered else "none"
        texts, self.thumbnails.tooltips = captions(self.offered, self.pair)
        self.looks.value = style(self.offered, f".ltkd-{self.thumbnails.model_id}")
        self.thumbnails.options = [(text, i) for i, text in enumerate(texts)]
        self.thumbnails.index = 0 if self.offered else None
        self._choose_picture()

    def _filtered(self) -> list[Picture]:
        if self.filter.value == MENDED:
            mended = (p for p in self.pictures if p.mended)
            return sorted(mended, key=lambda p: -p.mended)  # the surest first
        if self.filter.value == FEW:
            few = self.pair.any_classifier()
            return [
                p for p in self.pictures if p.true_class and few.shots(p.true_class)[1] == "few"
            ]
        return self.pictures

    def _note(self, uploading: bool) -> str:
        """Why there is no thumbnail, or not one for every file."""
        if uploading:
            return "" if self.offered else "No file yet."
        if self.filter.value == MENDED and not self.offered:
            return "None is known. Notebook 4 finds them among the test images."
        folder = self.pair.experiment.image_folder
        named, files = answers.escape(shown(folder)), len(predefined_images(folder))
        if not self.offered:
            return f"There are no such images. Put some into {named}, or upload one."
        return f"The first {MOST} of {files} files in {named} are shown." if files > MOST else ""

    @guarded
    def _choose_picture(self) -> None:
        self._clear()
        picture = self.picture
        self.preview.value = answers.preview(picture) if picture else ""
        self.classify.disabled = picture is None or bool(picture.error)

    @guarded
    def _clear(self) -> None:
        self.predictions = {}
        self.result.value = self.evidence.value = ""
        self.chosen_class.layout.display = "none"

    @guarded
    def _on_classify(self) -> None:
        start, picture = time.perf_counter(), self.picture
        if picture is None or picture.seen is None:
            return
        roles = MODELS[self.model.value]
        self.predictions = self._predict(picture.seen, roles)
        blocks = [
            answers.answer(role, self.pair, self.predictions[role], picture.true_class)
            for role in roles
        ]
        words = answers.difference(self.predictions, picture.true_class) if len(roles) > 1 else ""
        taken = 1000 * (time.perf_counter() - start)
        self.result.value = (
            f"<div>{words}</div><div class='ltkd-row'>{''.join(blocks)}</div>"
            f"Answered in {taken:.0f} ms."
        )
        self.chosen_class.layout.display = ""
        self._explain()
        if self.source.value == UPLOAD and len(self.uploads) > 1 and not self.table.value:
            self.table.value = answers.table([self._row(p) for p in self.uploads])

    def _predict(self, seen: Image.Image, roles: list[str]) -> dict[str, Prediction]:
        """By the roles, and by the Teacher where it can be had: the weights are from it."""
        wanted = {*roles, "teacher"} if self.pair.available("teacher") else roles
        return {role: self.pair.classifier(role).predict(seen) for role in wanted}

    @guarded
    def _explain(self) -> None:
        picture = self.picture
        if self.predictions and picture and picture.seen:
            self.evidence.value = answers.evidence(
                self.pair,
                picture.seen,
                self.predictions,
                MODELS[self.model.value],
                self.chosen_class.value,
            )

    @guarded
    def _show_example(self) -> None:
        """Go to the next test image that the Teacher gets wrong and the Student right."""
        again = self.source.value == PREDEFINED and self.filter.value == MENDED
        self.source.value, self.filter.value, self.model.value = PREDEFINED, MENDED, COMPARE
        if self.offered:
            self.thumbnails.index = (self.thumbnails.index + again) % len(self.offered)
            self._on_classify()

    def _row(self, picture: Picture) -> tuple[str, ...]:
        """One line of the table: both models' answers, or why there is none."""
        if picture.seen is None:
            return (picture.name, "", "", "", "", picture.error)
        there = [role for role in answers.TITLES if self.pair.available(role)]
        said = {role: self.pair.classifier(role).predict(picture.seen) for role in there}
        unsure = [role for role, p in said.items() if self.pair.unsure(role, p)]
        values: list[str] = []
        for role in answers.TITLES:
            p = said.get(role)
            values += (p.class_name, f"{p.probability:.4f}") if p else ("", "")
        return (picture.name, *values, f"unsure: {' and '.join(unsure)}" if unsure else "")
