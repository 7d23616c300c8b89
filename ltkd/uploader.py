"""The button that uploads files.

ipywidgets' own FileUpload sends all files in one message, and a Jupyter server drops messages of
more than 10 MiB together with the connection. So this one looks at the sizes in the browser and
sends the files one by one.
"""

from pathlib import Path
from typing import NamedTuple

import anywidget
import traitlets

from .images import MAX_BYTES


class Upload(NamedTuple):
    """One file; `content` is None where it was too large to be sent or could not be read."""

    name: str
    size: int  # bytes
    content: bytes | None


class Uploader(anywidget.AnyWidget):
    """A button to choose one or several files; `value` holds the last choice, once complete.

    >>> uploader = Uploader()
    >>> uploader.receive(uploader, {"name": "a.png", "size": 2, "place": 0, "number": 1}, [b"ab"])
    >>> uploader.value
    (Upload(name='a.png', size=2, content=b'ab'),)
    """

    _esm = Path(__file__).with_name("uploader.js")
    limit = traitlets.Int(MAX_BYTES).tag(sync=True)
    value = traitlets.Tuple()

    def __init__(self, **traits):
        super().__init__(**traits)
        self.arrived: list[Upload] = []
        self.on_msg(self.receive)

    def receive(self, widget: object, about: dict, buffers: list) -> None:
        """Take one file from the browser; the last one completes `value`."""
        if about["place"] == 0:
            self.arrived = []
        content = bytes(buffers[0]) if buffers else None
        self.arrived.append(Upload(str(about["name"]), int(about["size"]), content))
        if about["place"] == about["number"] - 1:
            self.value = tuple(self.arrived)
