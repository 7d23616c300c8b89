"""What comes from the network or from others is checked before it is unpacked or unpickled."""

import functools
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from pathlib import Path

import pytest
from torchvision import datasets as published

from ltkd.experiments import Experiment
from ltkd.sources import DataError, load_sources

NAMES = ["cifar10-lt", "cifar100-lt", "caltech256-lt"]
DATASETS = dict(
    zip(NAMES, (published.CIFAR10, published.CIFAR100, published.Caltech256), strict=True)
)


class Harmful:
    """Unpickling this would create a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def archive_of(members: dict[str, bytes | str]) -> bytes:
    """Text in place of bytes is where a symbolic link points to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname, content = tarfile.SYMTYPE, content, b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A function that puts an archive where CIFAR-10 is fetched from; it returns the URL."""
    folder = tmp_path / "publisher"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def publish(content: bytes) -> None:
            (folder / "archive.tar.gz").write_bytes(content)
            url = f"http://127.0.0.1:{server.server_port}/archive.tar.gz"
            monkeypatch.setattr(published.CIFAR10, "url", url)

        yield publish
        server.shutdown()


def refused(name: str) -> str:
    with pytest.raises(DataError) as error:
        load_sources(Experiment.named(name))
    return str(error.value)


def test_an_archive_with_another_checksum_is_not_unpacked(publisher, home):
    publisher(archive_of({"cifar-10-batches-py/data_batch_1": b"changed on the way"}))
    assert "could not be downloaded (File not found or corrupted.)" in refused("cifar10-lt")
    assert not (home / "data/cifar-10-batches-py").exists()


@pytest.mark.parametrize(
    "members",
    [
        {"../../climbed": b"out", "cifar-10-batches-py/batches.meta": b""},
        {"cifar-10-batches-py/../../../climbed": b"out"},
        {"link": "../..", "link/climbed": b"out"},
        {"first": "..", "first/second": "..", "first/second/climbed": b"out"},
    ],
    ids=["up", "down and up", "by a link", "by two links"],
)
def test_an_archive_that_climbs_out_is_not_unpacked(members, publisher, home, monkeypatch):
    """Even one with the right checksum writes nothing beside the data folder."""
    content = archive_of(members)
    publisher(content)
    monkeypatch.setattr(published.CIFAR10, "tgz_md5", hashlib.md5(content).hexdigest())
    assert "which is outside the destination" in refused("cifar10-lt")
    assert not list(home.parent.rglob("climbed"))


def test_a_batch_with_code_in_it_is_not_unpickled(home):
    folder, trace = home / "data/cifar-10-batches-py", home / "trace"
    folder.mkdir(parents=True)
    for file, _ in [*published.CIFAR10.train_list, *published.CIFAR10.test_list]:
        (folder / file).write_bytes(pickle.dumps(Harmful(trace), protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps(Harmful(trace), protocol=2))
    assert "are damaged or incomplete" in refused("cifar10-lt")
    assert not trace.exists()
    pickle.loads((folder / "data_batch_1").read_bytes())
    assert trace.exists()  # the file is as harmful as this test says


@pytest.mark.parametrize("name", NAMES)
def test_every_download_has_its_checksum(name, home, monkeypatch):
    """torchvision is asked for the data set with the checksum of the publisher's archive."""
    asked = {}

    def download(url, root, *arguments, md5=None, **options):
        asked.update(url=url, md5=md5)
        raise OSError("no network")

    module = __import__(DATASETS[name].__module__, fromlist=["download_and_extract_archive"])
    monkeypatch.setattr(module, "download_and_extract_archive", download)
    refused(name)
    assert len(asked["md5"]) == 32
