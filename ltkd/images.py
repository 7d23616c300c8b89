"""Reading one image that nobody has checked."""

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps

MAX_BYTES = 8 * 2**20  # below what a notebook's websocket carries
MAX_PIXELS = 50_000_000
MAX_ASPECT = 50
# Pillow reads many more; some of them start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


class ImageError(ValueError):
    """The bytes are not an image that can be used; the message says why, in one sentence."""


def read_image(content: bytes) -> Image.Image:
    """Decode an image file into an upright RGB picture; transparency becomes white.

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata that do not matter here
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_size(*image.size)
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"The image has more than {MAX_PIXELS:,} pixels.") from error
    except Exception as error:  # Pillow's decoders raise many kinds of exception on bad files
        raise ImageError("This is not an image that can be read, or it is damaged.") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"The image has {width:,} × {height:,} pixels, more than {MAX_PIXELS:,} in all."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"The image is {width:,} × {height:,} pixels: too long and thin to be a picture."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16 bits or more a pixel: bring to 8
        wide = image.mode.startswith("I;16") or image.convert("F").getextrema()[1] > 255
        scale = 255 / 65535 if image.mode.startswith("I") and wide else 1.0
        grey = image.convert("F").point(lambda value: value * scale + 0.5)  # convert cuts decimals
        return grey.convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def png_bytes(image: Image.Image, side: int = 384) -> bytes:
    """The picture as PNG for a preview: enlarged or shrunk so that its longer side is `side`."""
    scale = side / max(image.size)
    size = [max(1, round(length * scale)) for length in image.size]
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def predefined_images(folder: Path) -> list[Path]:
    """The pictures of `folder` that the panel offers, by name."""
    suffixes = {".png", ".jpg", ".jpeg"}
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(f for f in found if f.suffix.lower() in suffixes and not f.name.startswith("."))
