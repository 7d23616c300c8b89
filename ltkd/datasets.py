"""Built data sets: cut, read and saved once, in one file; photographs in a second one."""

import hashlib
import json
import zipfile
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from .class_folders import DataError, fingerprint, listing
from .decoding import checksums
from .experiments import Experiment
from .files import claimed, printable, progress, shown, write_atomically
from .longtail import class_groups, head_classes
from .mapped import MappedImages
from .naming import DATA_TAGS
from .selection import check_counts, choose_rows, count_broken, merged, readable_sources
from .sources import Images, Source, image_store, load_sources
from .splits import find_split, read_split


class Split(NamedTuple):
    images: Images  # uint8 (N, 3, H, W), in memory or mapped
    labels: np.ndarray  # int64 (N,)
    sources: np.ndarray  # (N,) place in the publisher's order, or file name


SPLITS = ("train", "validation", "test")
IN_MEMORY = 128 * 2**20  # bytes of a split's images; larger ones stay in their file


@dataclass(frozen=True)
class LongTailedData:
    """A built data set: three splits, and what the training counts say about the classes."""

    name: str
    class_names: list[str]
    train: Split
    validation: Split
    test: Split
    remark: str = ""  # what sets the files at hand apart from the publisher's
    # of every image of a user's folder, by split: those can change under their names
    checksums: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, Split]:
        return {name: getattr(self, name) for name in SPLITS}

    @property
    def sizes(self) -> str:
        """How many images each split has, in words."""
        return ", ".join(f"{len(split.labels):,} {name}" for name, split in self.splits.items())

    @cached_property
    def counts(self) -> np.ndarray:
        """Training images per class, int64 (C,)."""
        return np.bincount(self.train.labels, minlength=len(self.class_names))

    @cached_property
    def fingerprint(self) -> str:
        """A short text that changes when an image comes, goes or moves to another split.

        Of a user's folder, also when an image's content changes. The order does not count: a cut
        that is read from its file may have another one.
        """
        members: list[tuple] = []
        for split, (_, labels, sources) in self.splits.items():
            columns = [[split] * len(labels), map(str, sources), labels.tolist()]
            columns += [self.checksums[split].tolist()] if split in self.checksums else []
            members += zip(*columns, strict=True)
        return hashlib.sha256(json.dumps(sorted(members)).encode()).hexdigest()[:16]

    @property
    def head(self) -> np.ndarray:
        return head_classes(self.counts)

    @property
    def groups(self) -> dict[str, np.ndarray]:
        return class_groups(self.counts)


def build(experiment: Experiment) -> LongTailedData:
    """Return the experiment's data, built once and then read from data/built/<name>.npz.

    Raises DataError where the data are missing or damaged, OSError where nothing can be written.
    """
    file, data = experiment.built_file, None
    was_there = file.exists()
    if was_there:
        data = _load(experiment)
    if data is None:
        with claimed(file, f"The building of {experiment.data_name}", wait=True):
            if file.exists() and not was_there:  # another process has just built it
                data = _load(experiment)
            data = data or _build(experiment)
    if data.remark:
        print(data.remark)
        if was_there:
            print(f"If you have other files now, delete {shown(file)}: it is built again then.")
    splits: dict[str, Any] = {name: _in_memory(split) for name, split in data.splits.items()}
    return replace(data, **splits)


def same_images(stored: dict, fingerprint: str) -> bool:
    """Whether a stored model or result is of the images with this fingerprint.

    Files of before fingerprints do not tell, and are taken for such.
    """
    return stored.get("data") in (None, fingerprint)


def _build(experiment: Experiment) -> LongTailedData:
    identity = _identity(experiment)  # first: files that come while others are read are news
    data = _cut_and_read(experiment)
    check_counts(data.class_names, data.counts)
    for split in ("validation", "test"):
        if not len(data.splits[split].labels):
            raise DataError(f"No {split} image could be read: replace the damaged files.")
    if experiment.folder:
        data = replace(data, checksums={s: checksums(getattr(data, s).images) for s in SPLITS})
    _save(experiment, data, identity)
    return data


def _in_memory(split: Split) -> Split:
    """The split with its images as a plain array, unless that would fill the memory."""
    small = split.images.nbytes <= IN_MEMORY
    return split._replace(images=np.asarray(split.images)) if small else split


def _cut_and_read(experiment: Experiment) -> LongTailedData:
    sources, size = load_sources(experiment), experiment.image_size
    if experiment.folder:
        sources = merged(readable_sources(sources, size), experiment.merge_below)
    if sources.root and not experiment.folder and (written := find_split(experiment)):
        print(f"The split is the one of {shown(written)}.")
        rows = read_split(written, sources.train.ids, sources.root)
    else:
        rows = choose_rows(experiment, sources)
    train, test = sources.train, sources.test
    tested = rows["test"] if test is None else np.arange(len(test.ids))
    return LongTailedData(
        experiment.data_name,
        list(sources.class_names),
        _read(train, rows["train"], size),
        _read(train, rows["validation"], size),
        _read(test or train, tested, size),
        sources.remark,
    )


def _read(source: Source, rows: np.ndarray, size: int) -> Split:
    images, readable = source.read(rows, size)
    count_broken(readable)
    images = images.where(readable) if isinstance(images, MappedImages) else images[readable]
    return Split(images, source.labels[rows][readable], source.ids[rows][readable])


def _save(experiment: Experiment, data: LongTailedData, identity: dict) -> None:
    arrays = {
        f"{split}_{name}": array
        for split, own in data.splits.items()
        for name, array in own._asdict().items()
    }
    for split in SPLITS:
        if isinstance(images := arrays[f"{split}_images"], MappedImages):
            del arrays[f"{split}_images"]
            arrays[f"{split}_rows"], arrays["map"] = images.rows, np.array(images.path.name)
            known = data.checksums.get(split)
            arrays[f"{split}_checksums"] = checksums(images) if known is None else known
    arrays |= {"class_names": np.array(data.class_names), "counts": data.counts}
    arrays["identity"] = np.array(json.dumps(identity))
    arrays["remark"] = np.array(data.remark)

    def write(file):
        # np.savez would do, but LZMA saves a fourth of photographs where zlib saves a tenth
        with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_array(member, array, f"packing {name}")

    write_atomically(experiment.built_file, write)


def _write_array(file: IO[bytes], array: np.ndarray, title: str) -> None:
    """NumPy's own format, written in pieces under a progress bar."""
    header = np.lib.format.header_data_from_array_1_0(np.asarray(array, order="C"))
    np.lib.format.write_array_header_1_0(file, header)
    pieces = np.array_split(array, max(1, array.nbytes // 2**20)) if array.ndim else [array]
    for piece in progress(pieces, desc=title, unit=" MB"):
        file.write(piece.tobytes())


def _load(experiment: Experiment) -> LongTailedData | None:
    """Read the built file, or return None (and say so) where it has to be built again."""
    path, wanted = experiment.built_file, _identity(experiment)
    try:
        data, stored = read_built(path)
    except Exception as error:  # any damage at all: the file can be made again
        print(f"{path} is damaged ({type(error).__name__}); it is built again.")
        return None
    # a split file that has gone is missing on one side only
    differs = [key for key in (*wanted, "split") if stored.get(key) != wanted.get(key)]
    other = stored.get("folder")
    if other and "folder" in differs and Path(other).is_dir():
        if not Path(experiment.folder or "").is_dir():
            raise DataError(f"There is no folder {printable(experiment.folder)}: check its path.")
        raise DataError(
            f"{printable(other)}, from which {shown(path)} was built, has the same name as "
            f"{printable(experiment.folder)}: rename one of the two folders, for the models of one "
            f"would replace the other's."
        )
    if experiment.folder and differs == ["files"]:
        root = Path(experiment.folder)
        changes = image_store(experiment, root, experiment.image_size).changes(listing(root))
        print(f"{printable(root)} has changed since it was built ({changes}): it is built again.")
    elif differs:
        print(f"{path} does not fit this experiment; it is built again.")
    return None if differs else data


def read_built(path: Path) -> tuple[LongTailedData, dict]:
    """A built file's data, and what they were made from; raises an error where it is damaged."""
    # np.load leaves a truncated file open, if it is the one that opened it
    with path.open("rb") as stored, np.load(stored, allow_pickle=False) as archive:
        # reads check the archive's checksums
        arrays = {name: archive[name] for name in archive.files}
    identity, splits = json.loads(str(arrays["identity"])), {}
    sums: dict[str, np.ndarray] = {}
    for s in SPLITS:
        if "map" in arrays:
            file, rows = path.parent / Path(str(arrays["map"])).name, arrays[f"{s}_rows"]
            images = MappedImages(file, rows, identity["image_size"])
            if not np.array_equal(checksums(images), arrays[f"{s}_checksums"]):
                raise ValueError(f"{file} holds other images")
            arrays[f"{s}_images"] = images
            sums |= {s: arrays[f"{s}_checksums"]} if identity["folder"] else {}
        splits[s] = Split(*(arrays[f"{s}_{name}"] for name in Split._fields))
    names, remark = arrays["class_names"].tolist(), str(arrays["remark"])
    data = LongTailedData(path.stem, names, remark=remark, checksums=sums, **splits)
    if not np.array_equal(data.counts, arrays["counts"]):
        raise ValueError("the counts do not fit the labels")
    return data, identity


def _identity(experiment: Experiment) -> dict:
    """What the built file was made from; of a folder also which files it held, and else the split
    file, where there is one."""
    folder = Path(experiment.folder) if experiment.folder else None
    files = {"files": fingerprint(folder)} if folder and folder.is_dir() else {}
    place = {"folder": str(folder.resolve()) if folder else None}
    if not folder and (written := find_split(experiment)):
        files = {"split": hashlib.sha256(written.read_bytes()).hexdigest()[:16]}
    return files | place | {f: getattr(experiment, f) for f in (*DATA_TAGS, "source")}
