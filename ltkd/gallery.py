"""The pictures that the panel offers: files, test images that tell something, uploads."""

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from .classifier import ModelPair, one_thread
from .datasets import LongTailedData, read_built, same_images
from .evaluation import predict, softmax
from .experiments import ROLES, Experiment
from .files import printable, read_json, write_atomically, write_json
from .images import MAX_BYTES, ImageError, enlarged, predefined_images, read_image
from .longtail import largest_first, spread

PREVIEW = 256  # pixels, the longer side
WRITTEN = ".written.json"  # which files of the folder were put there, and of which data
MOST = 60  # files of the folder that are offered
CREDITS = {
    "china.jpg": "photograph by danielbuechele, CC BY 2.0",
    "flower.jpg": "photograph by vultilion, CC BY 2.0",
}


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery, read once; `error` says why one cannot be used."""

    name: str
    preview: Image.Image | None = None  # the longer side has PREVIEW pixels
    seen: Image.Image | None = None  # the square that the models see
    size: tuple[int, int] = (0, 0)  # of the file, width and height in pixels
    true_class: str | None = None
    credit: str = ""
    mended: float = 0.0  # where the Teacher is wrong and the Student right: how sure it is, 0..1
    error: str = ""


def read_picture(
    name: str, content: bytes | None, pair: ModelPair, size: int = 0, **known: Any
) -> Picture:
    """Read an image file for the pair's models; one that cannot be used keeps its reason.

    `size` is that of an upload, in bytes; `content` is None where it was not sent; `known` are
    other fields of Picture. The full picture is not kept: twenty large ones would fill the memory.
    """
    name = printable(name)
    try:
        if size > MAX_BYTES:
            raise ImageError(f"The file is larger than {MAX_BYTES // 2**20} MiB.")
        if content is None:
            raise ImageError("The file could not be read by the browser.")
        image = read_image(content)
    except ImageError as error:
        return Picture(name, error=str(error))
    return _picture(name, image, pair, **known)


def _picture(name: str, image: Image.Image, pair: ModelPair, **known: Any) -> Picture:
    seen = pair.any_classifier().fit(image)
    return Picture(name, enlarged(image, PREVIEW), seen, image.size, **known)


def gallery(pair: ModelPair) -> list[Picture]:
    """What the panel offers: the folder's files, mended test images, two other photographs.

    In the order of their true class, largest training count first; files of no known class last.
    """
    classifier = pair.any_classifier()
    classes, order = classifier.class_names, largest_first(classifier.counts).tolist()
    files = predefined_images(pair.experiment.image_folder)[:MOST]
    pictures = [_from_file(file, pair, classes) for file in files]
    names = {picture.name for picture in pictures}
    pictures += [p for p in mended_test_images(pair) if p.name not in names]
    pictures.sort(
        key=lambda p: order.index(classes.index(p.true_class)) if p.true_class else len(order)
    )
    return _mark_mended(pictures, pair) + _photographs(pair)


def _from_file(file: Path, pair: ModelPair, classes: list[str]) -> Picture:
    parts = file.stem.split("-test-")
    written = {"-test-".join(parts[:end]) for end in range(1, len(parts))}
    named = [name for name in classes if _plain(name) in written]
    try:
        content = file.read_bytes()
    except OSError:
        return Picture(file.name, error="The file cannot be read.")
    return read_picture(file.stem, content, pair, true_class=named[0] if len(named) == 1 else None)


def _mark_mended(pictures: list[Picture], pair: ModelPair) -> list[Picture]:
    """Ask both models about the pictures whose class is known."""
    known = [i for i, p in enumerate(pictures) if p.true_class and p.seen]
    if not known or not all(pair.available(role) for role in ROLES):
        return pictures
    images = np.stack([np.asarray(pictures[i].seen).transpose(2, 0, 1) for i in known])
    with one_thread():
        teacher, student = (softmax(predict(pair.classifier(r).network, images)) for r in ROLES)
    names = pair.classifier("student").class_names
    for i, t, s in zip(known, teacher, student, strict=True):
        if names[t.argmax()] != pictures[i].true_class == names[s.argmax()]:
            pictures[i] = replace(pictures[i], mended=float(s.max()))
    return pictures


def _photographs(pair: ModelPair) -> list[Picture]:
    """Two photographs that come with scikit-learn: unlike most training data."""
    found = load_sample_images()
    return [
        _picture(Path(file).stem, Image.fromarray(pixels), pair, credit=CREDITS[Path(file).name])
        for file, pixels in zip(found.filenames, found.images, strict=True)
    ]


def mended_test_images(pair: ModelPair, most: int = 12) -> list[Picture]:
    """Test images that the Teacher gets wrong and the Student right, of the rarest classes first.

    Found by the evaluation (results.json) and read from the built data set; none where either is
    missing.
    """
    rows = np.array(pair.results.get("comparison", {}).get("mended", []), int)
    path, classes = pair.experiment.built_file, pair.any_classifier().class_names
    if not len(rows) or not path.is_file():
        return []
    try:
        data, _ = read_built(path)
    except Exception:  # any damage: notebook 1 builds it again
        return []
    if data.class_names != classes or rows.max() >= len(data.test.labels):
        return []
    if not same_images(pair.results, data.fingerprint):  # other images since
        return []
    images, labels, sources = (field[rows] for field in data.test)
    rarest = largest_first(data.counts)[::-1]
    chosen = [i for c in rarest for i in np.flatnonzero(labels == c)[:3]][:most]
    return [
        _picture(
            image_name(classes[labels[i]], sources[i]),
            Image.fromarray(images[i].transpose(1, 2, 0)),
            pair,
            true_class=classes[labels[i]],
        )
        for i in chosen
    ]


def save_predefined_images(experiment: Experiment, data: LongTailedData, most: int = 24) -> Path:
    """Put test images, one for each of up to `most` classes, where the panel looks for them.

    A folder that holds images already is left as it is, unless this put them there and the data
    have other images since: then it exchanges its own. Returns the folder.
    """
    folder = experiment.image_folder
    record = folder / WRITTEN
    written = read_json(record) if record.is_file() else {"data": data.fingerprint, "files": []}
    if predefined_images(folder) and written["data"] == data.fingerprint:
        return folder
    for name in written["files"]:  # a test image of before may be a training image now
        (folder / Path(name).name).unlink(missing_ok=True)
    order, rows = largest_first(data.counts), {}
    for label in spread(order[np.isin(order, data.test.labels)], most):
        row = np.flatnonzero(data.test.labels == label)[0]
        rows[f"{image_name(data.class_names[label], data.test.sources[row])}.png"] = row
    write_json(record, {"data": "", "files": list(rows)})  # if this is stopped, it begins again
    for name, row in rows.items():
        picture = Image.fromarray(data.test.images[row].transpose(1, 2, 0))
        write_atomically(folder / name, partial(picture.save, format="PNG"))
    write_json(record, {"data": data.fingerprint, "files": list(rows)})
    return folder


def image_name(class_name: str, source: object) -> str:
    """The file name of a test image, without its ending: its class can be read from it.

    >>> image_name("maple tree", 17)
    'maple_tree-test-17'
    """
    return f"{_plain(class_name)}-test-{_plain(source)}"


def _plain(value: object) -> str:
    return re.sub(r"[^\w-]+", "_", str(value))[-32:]  # file systems take 255 bytes for a name
