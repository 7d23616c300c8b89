"""Reading one image that nobody has checked."""

import contextlib
import io
import logging
import os
import re
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

MAX_BYTES = 8 * 2**20  # a notebook's websocket carries 10 MiB, the message around it included
MAX_PIXELS = 50_000_000
MAX_ASPECT = 50
MAX_SCANS = 100  # of a JPEG file; programs write about ten
SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")  # how a scan begins
LARGE = 4_000_000  # pixels; of several threads one at a time decodes such an image
# Pillow reads many more; some of them start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
UPRIGHT = {  # EXIF's orientation → what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
logging.getLogger("PIL").addHandler(logging.NullHandler())  # it logs what it then raises
# It warns of odd metadata that do not matter here. Set once: several threads read images, and
# warnings.catch_warnings would change the filters of all of them.
warnings.filterwarnings("ignore", module="PIL")
_one_large, _one_silent = threading.Lock(), threading.Lock()


class ImageError(ValueError):
    """The bytes are not an image that can be used; the message says why, in one sentence."""


def read_image(content: bytes, side: int | None = None) -> Image.Image:
    """Decode an image file into an upright RGB picture; transparency becomes white.

    With a `side` the picture may come out smaller, no side below twice as many pixels: a JPEG
    file of a camera is then decoded several times as fast.

    Raises ImageError for anything else: not an image, truncated, empty, huge, absurdly long.

    >>> buffer = io.BytesIO()
    >>> Image.new("L", (4, 3), 128).save(buffer, "PNG")
    >>> read_image(buffer.getvalue()).size
    (4, 3)
    >>> read_image(b"GIF89a and then nothing")
    Traceback (most recent call last):
        ...
    ltkd.images.ImageError: This is not an image that can be read, or it is damaged.
    """
    if not content:
        raise ImageError("The file is empty.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(*image.size)
            if image.format in ("JPEG", "MPO"):
                _check_scans(content)
            if side:
                image.draft(None, (2 * side, 2 * side))
            large = image.width * image.height > LARGE
            with _one_large if large else contextlib.nullcontext():
                with _silent() if image.format == "TIFF" else contextlib.nullcontext():
                    image.load()
                return _upright(image, _to_rgb(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"The image has more than {MAX_PIXELS:,} pixels.") from error
    except MemoryError as error:
        raise ImageError("The memory does not suffice for this image.") from error
    except Exception as error:  # Pillow's decoders raise many kinds of exception on bad files
        raise ImageError("This is not an image that can be read, or it is damaged.") from error


@contextlib.contextmanager
def _silent():
    """libtiff writes about damaged files to the process's error output: notebooks would show it."""
    with _one_silent:  # the error output is one for all threads
        error_output, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(error_output, 2)
            os.close(error_output)
            os.close(nowhere)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"The image has {width:,} × {height:,} pixels, more than {MAX_PIXELS:,} in all."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"The image is {width:,} × {height:,} pixels: too long and thin to be a picture."
        )


def _check_scans(content: bytes) -> None:
    """Each scan is a pass over all pixels, in as little as 14 bytes: a file could take hours."""
    scans = sum(1 for _ in SCAN.finditer(content))
    if scans > MAX_SCANS:
        raise ImageError(
            f"The JPEG file is written in {scans:,} passes, more than {MAX_SCANS}: save it anew."
        )


def _upright(image: Image.Image, picture: Image.Image) -> Image.Image:
    """The picture, turned as the EXIF data of its `image` say.

    Pillow's exif_transpose would write those data, too, and some can be read, but not written.
    """
    try:
        turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data, of many kinds; the picture itself is sound
        return picture
    return picture if turn is None else picture.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # one channel, more than 8 bits a pixel
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 9 to 32 bits as 0..255, from the full range that they are stored in.

    Integers and floats of 32 bits do not say their range: the first that holds all values, or but
    for a tenth, as resizing may leave them. What is no number is black.
    """
    grey = np.nan_to_num(np.asarray(image.convert("F")), posinf=0, neginf=0)
    tags = getattr(image, "tag_v2", {})  # of a TIFF file
    if image.mode.startswith("I;16"):
        full: float = 2 ** tags.get(BITSPERSAMPLE, (16,))[0] - 1
    else:
        ranges = (1, 255, 65535) if image.mode == "F" else (255, 65535)
        full = next((r for r in ranges if grey.max() <= 1.1 * r), grey.max())
    grey = np.clip(grey / np.float32(full) * 255 + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 else grey)


def png_bytes(image: Image.Image) -> bytes:
    """The picture as a PNG file, packed for speed."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """The picture scaled so that its longer side is `side` pixels; small ones keep their pixels.

    >>> enlarged(Image.new("RGB", (32, 16)), 256).size
    (256, 128)
    """
    scale = side / max(image.size)
    size = [max(1, round(length * scale)) for length in image.size]
    return image.resize(size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS)


def predefined_images(folder: Path) -> list[Path]:
    """The pictures of `folder` that the panel offers, by name."""
    suffixes = {".png", ".jpg", ".jpeg"}
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(f for f in found if f.suffix.lower() in suffixes and not f.name.startswith("."))
