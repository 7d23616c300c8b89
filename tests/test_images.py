"""Images that nobody has checked: every format, every mode, and files that are no images."""

import functools
import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from ltkd.images import MAX_ASPECT, ImageError, predefined_images, read_image

DAMAGED = "not an image that can be read, or it is damaged"


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> list:
    """The pixels that read_image sees, row by row."""
    image = read_image(content)
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def noise(width: int = 40, height: int = 30) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A piece of a PNG file."""
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of less than 100 bytes whose header says that it is this large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats(kind):
    image = Image.new("RGB", (5, 3), (200, 40, 90))
    found = np.array(pixels(encode(image, kind)))
    assert found.shape == (3, 5, 3)
    assert np.abs(found - [200, 40, 90]).max() <= (0 if kind in ("PNG", "BMP", "TIFF") else 8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_are_exact(kind):
    assert np.array_equal(pixels(encode(noise(), kind)), np.asarray(noise()))


def test_an_animation_shows_its_first_picture():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(content)[0][0] == [255, 0, 0]


@pytest.mark.parametrize(("orientation", "size"), [(1, (2, 1)), (3, (2, 1)), (6, (1, 2))])
def test_orientation(orientation, size):
    image = Image.new("RGB", (2, 1))
    image.putdata([(255, 0, 0), (0, 0, 255)])  # red on the left, blue on the right
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = read_image(encode(image, "PNG", exif=exif))
    assert turned.size == size
    first = (0, 0, 255) if orientation == 3 else (255, 0, 0)  # 3: upside down; 6: lies on its side
    assert turned.getpixel((0, 0)) == first


def test_damaged_exif_does_not_matter():
    content = encode(noise(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01")
    assert read_image(content).size == (40, 30)


def test_exif_that_cannot_be_written_again_turns_the_picture_all_the_same():
    """Pillow reads a position that is too large a number for its field, but does not write it."""
    entries = [(0x0112, 3, 1, 6), (0x0213, 4, 1, 70_000)]  # lies on its side; YCbCrPositioning
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    exif += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    assert read_image(encode(noise(), "JPEG", exif=exif)).size == (30, 40)


def test_a_jpeg_of_endless_passes_is_refused():
    """A scan may be repeated in a few bytes, and each is a pass over all pixels."""
    content = encode(noise(), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    scan, end = content[last:-2], content[-2:]
    assert read_image(content[:-2] + 50 * scan + end).size == (40, 30)
    with pytest.raises(ImageError, match="passes, more than 100: save it anew"):
        read_image(content[:-2] + 200 * scan + end)


def test_grey_and_black_and_white():
    assert pixels(encode(Image.new("L", (1, 1), 77))) == [[[77, 77, 77]]]
    assert pixels(encode(Image.new("1", (1, 1), 1))) == [[[255, 255, 255]]]


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image)) == [[[10, 20, 30], [200, 100, 50]]]
    assert pixels(encode(image, transparency=0)) == [[[255, 255, 255], [200, 100, 50]]]


def test_transparency_becomes_white():
    image = Image.new("RGBA", (4, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51), (0, 0, 255, 204)])
    # 255 · (1 − 51/255) = 204; 255 · (1 − 204/255) = 51
    expected = [[255, 0, 0], [255, 255, 255], [204, 204, 204], [51, 51, 255]]
    assert pixels(encode(image)) == [expected]


def test_grey_with_transparency():
    image = Image.new("LA", (2, 1))
    image.putdata([(100, 255), (100, 0)])
    assert pixels(encode(image)) == [[[100] * 3, [255] * 3]]


def test_cmyk():
    image = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    assert pixels(encode(image, "TIFF")) == [[[255, 0, 0]]]
    assert read_image(encode(image.resize((8, 8)), "JPEG")).mode == "RGB"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(kind):
    values = np.array([[0, 65535, 257 * 100, 257 * 7 + 128, 257 * 7 + 129]], np.uint16)
    found = [pixel[0] for pixel in pixels(encode(Image.fromarray(values), kind))[0]]
    assert found == [0, 255, 100, 7, 8]


def test_dark_sixteen_bits_stay_dark():
    values = np.array([[0, 200, 255]], np.uint16)
    assert [p[0] for p in pixels(encode(Image.fromarray(values)))[0]] == [0, 1, 1]


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """A grey TIFF file whose tags may say something else than Pillow would write."""
    content = bytearray(encode(Image.fromarray(values), "TIFF"))
    start = int.from_bytes(content[4:8], "little") + 2
    for place in range(start, len(content), 12):
        tag = int.from_bytes(content[place : place + 2], "little")
        if f"t{tag}" in tags:
            content[place + 8 : place + 10] = tags[f"t{tag}"].to_bytes(2, "little")
    return bytes(content)


def test_white_may_be_zero():
    values = np.array([[0, 65535, 257 * 100]], np.uint16)
    assert [p[0] for p in pixels(tiff(values, t262=0))[0]] == [255, 0, 155]


def test_twelve_bits_of_sixteen():
    """12 bits a pixel, packed: two pixels in three bytes."""
    content = bytearray(tiff(np.zeros((1, 4), np.uint16), t258=12, t279=6))
    image = Image.open(io.BytesIO(bytes(content)))
    place = image.tag_v2[273][0]
    content[place : place + 6] = bytes.fromhex("000fff800064")  # 0, 4095, 2048, 100
    assert [p[0] for p in pixels(bytes(content))[0]] == [0, 255, 128, 6]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.float32([[0, 0.5, 1]]), [0, 128, 255]),  # 0..1
        (np.float32([[0, 128, 255]]), [0, 128, 255]),  # 0..255
        (np.float32([[0, 32767.5, 65535]]), [0, 128, 255]),
        (np.float32([[0, 5e5, 1e6]]), [0, 128, 255]),
        (np.int32([[0, 128, 255]]), [0, 128, 255]),
        (np.int32([[-5, 257 * 100, 65535]]), [0, 100, 255]),
        (np.int32([[0, 10**6, 2 * 10**6]]), [0, 128, 255]),
        (np.float32([[-0.002, 0.5, 1.001]]), [0, 128, 255]),  # resized
        (np.float32([[np.nan, 0.5, 1]]), [0, 128, 255]),  # no value there
        (np.float32([[0.5, np.inf, 1]]), [128, 0, 255]),
    ],
)
def test_32_bits_are_scaled_to_the_first_range_that_holds_them(values, grey):
    found = [pixel[0] for pixel in pixels(encode(Image.fromarray(values), "TIFF"))[0]]
    assert found == grey


def test_sixteen_bits_a_colour():
    """A PNG of Pillow has no 16 bits a colour, so this one is made by hand."""
    row = struct.pack(">BHHH", 0, 65535, 257 * 100, 0)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row))
    assert pixels(content + chunk(b"IEND", b"")) == [[[255, 100, 0]]]


def test_an_empty_file():
    with pytest.raises(ImageError, match=r"^The file is empty\.$"):
        read_image(b"")


@pytest.mark.parametrize(
    "content", [b"\0", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<svg/>", b"\xff\xd8\xff"]
)
def test_no_image(content):
    with pytest.raises(ImageError, match=DAMAGED):
        read_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(kind, share):
    content = encode(noise(), kind)
    with pytest.raises(ImageError, match=DAMAGED):
        read_image(content[: int(share * len(content))])


@pytest.mark.parametrize("side", [8_000, 10_000, 60_000, 2**31 - 1])
def test_a_tiny_file_that_claims_to_be_huge(side):
    content = png_that_claims(side, side)
    assert len(content) < 100
    with pytest.raises(ImageError, match="more than 50,000,000"):
        read_image(content)


def test_long_and_thin():
    assert read_image(encode(Image.new("RGB", (MAX_ASPECT, 1)))).size == (MAX_ASPECT, 1)
    for size in ((MAX_ASPECT + 1, 1), (1, MAX_ASPECT + 1)):
        with pytest.raises(ImageError, match="too long and thin"):
            read_image(encode(Image.new("RGB", size)))


def test_a_picture_of_one_pixel():
    assert pixels(encode(Image.new("RGB", (1, 1), "lime"))) == [[[0, 255, 0]]]


def test_errors_are_one_sentence():
    for content in (b"", b"hello", png_that_claims(8000, 8000), png_that_claims(9, 9999)):
        with pytest.raises(ImageError) as error:
            read_image(content)
        assert "\n" not in str(error.value)
        assert str(error.value).endswith(".")


def test_a_large_jpeg_is_decoded_at_no_less_than_twice_the_side():
    photograph = encode(Image.new("RGB", (400, 300)), "JPEG")
    assert read_image(photograph).size == (400, 300)
    assert read_image(photograph, side=64).size == (200, 150)
    assert read_image(photograph, side=30).size == (100, 75)
    assert read_image(photograph, side=100).size == (400, 300)


def test_what_is_said_after_a_tiff_is_heard(capfd):
    read_image(encode(noise(), "TIFF"))
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_predefined_images(tmp_path):
    for name in ("b.png", "a.JPG", "c.jpeg", "d.txt", ".hidden.png", "e.webp"):
        (tmp_path / name).touch()
    assert [f.name for f in predefined_images(tmp_path)] == ["a.JPG", "b.png", "c.jpeg"]
    assert predefined_images(tmp_path / "nowhere") == []


def test_formats_that_start_other_programs_are_refused(monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: started.append(args))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ImageError, match="not an image"):
        read_image(script)
    assert started == []


@functools.cache
def sound_files() -> list[bytes]:
    """One file of each format and of the odd kinds."""
    picture, grey = noise(), noise().convert("L")
    plain = [encode(picture, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")]
    packed = [encode(picture, "TIFF", compression=c) for c in ("tiff_lzw", "jpeg", "tiff_deflate")]
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = [
        encode(picture, "JPEG", exif=exif),
        encode(picture, "JPEG", progressive=True),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture.convert("P"), transparency=3),
        encode(picture.convert("RGBA"), "WEBP", lossless=True),
        encode(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54)),
        encode(grey.convert("1"), "TIFF", compression="group4"),
        encode(picture, "GIF", save_all=True, append_images=[grey.convert("RGB")]),
    ]
    return plain + packed + odd


@st.composite
def spoilt_files(draw) -> bytes:
    """A sound file with one to four damages."""
    values = bytearray(draw(st.sampled_from(sound_files())))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(DAMAGES))
        reach = 64 if draw(st.booleans()) else len(values)  # sizes and offsets are in the header
        place = draw(st.integers(0, min(len(values), reach)))
        if kind == "bits":
            for i in range(place, min(place + 3, len(values))):
                values[i] ^= 1 << draw(st.integers(0, 7))
        elif kind == "bytes":
            values[place : place + 4] = draw(st.binary(min_size=4, max_size=4))
        elif kind == "extremes":
            values[place : place + 4] = draw(st.sampled_from([bytes(4), b"\xff" * 4, b"\x7f" * 4]))
        elif kind == "inserted":
            values[place:place] = draw(st.binary(max_size=100))
        elif kind == "cut":
            del values[place:]
        elif kind == "doubled":
            values[place:place] = values[: draw(st.integers(0, len(values)))]
        else:  # the header of another format
            values[:32] = draw(st.sampled_from(sound_files()))[:32]
    return bytes(values)


DAMAGES = ("bits", "bytes", "extremes", "inserted", "cut", "doubled", "another header")


def check_spoilt(content: bytes) -> str:
    """Read it: a picture or an ImageError, else an AssertionError or another error is raised."""
    try:
        image = read_image(content)
    except ImageError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        return "refused"
    assert image.mode == "RGB" and min(image.size) > 0
    return "read"


def test_spoilt_files_are_images_or_image_errors(capfd):
    """Never another exception, never a message of a decoder. drills.py does it with 20,000."""
    outcomes = {"read": 0, "refused": 0}

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(spoilt_files())
    def check(content):
        outcomes[check_spoilt(content)] += 1

    check()
    assert min(outcomes.values()) > 30  # the damage is neither always fatal nor always harmless
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
