"""Damaged, odd and hostile image files: decoded right or refused by name, never a wrong picture."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from research.data.images import UnreadableImage, decode

REFUSED = {
    "truncated.jpg": "truncated",
    "bitrot.jpg": "broken data stream",
    "zero-byte.jpg": "empty file",
    "text.jpg": "not an image \\(text",
    "html-error-page.jpg": "not an image \\(HTML",
    "bad-crc.png": "",
    "bomb-20000x20000-1bit.png": "pixels",
    "bomb-header-only-60000x60000.png": "pixels",
    "bomb-header-65000x65000.jpg": "pixels",
    "zero-size-0x0-header.png": "",
    "Thumbs.db": "not an image",
}
LIKE_GOOD = {  # name -> largest mean difference from good.jpg
    "png-named.jpg": 4.0,
    "trailing-garbage.jpg": 0.0,
    ".hidden.jpg": 0.0,
    "spaces and ünïcode 名.jpg": 0.0,
    "rgba.png": 4.0,
    "cmyk.jpg": 6.0,
    "progressive.jpg": 3.0,
    "exif-orientation-6.jpg": 4.0,
    "palette-transparent.png": 12.0,
}


def encoded(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize("name, reason", REFUSED.items())
def test_unusable_files_are_refused_by_name(shared_data, name, reason):
    with pytest.raises(UnreadableImage, match=f"^{name}: .*{reason}"):
        decode((shared_data / "bad-images" / name).read_bytes(), name)


@pytest.mark.parametrize("name, limit", LIKE_GOOD.items())
def test_odd_files_decode_to_the_same_picture(shared_data, name, limit):
    folder = shared_data / "bad-images"
    good, found = (decode((folder / file).read_bytes(), file).astype(int) for file in ("good.jpg", name))
    assert found.shape == good.shape
    assert np.abs(found - good).mean() <= limit


@pytest.mark.parametrize(
    "name, shape",
    [
        ("one-pixel.png", (1, 1)),
        ("one-column-1x500.png", (500, 1)),
        ("rgb-16bit.png", (96, 128)),
        ("animated-gif-named.png", (96, 128)),
    ],
)
def test_small_and_animated_files_become_one_rgb_picture(shared_data, name, shape):
    assert decode((shared_data / "bad-images" / name).read_bytes(), name).shape == (*shape, 3)


def test_16_bit_grey_keeps_its_upper_byte():
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    found = decode(encoded(Image.fromarray(values)), "grey.png")
    assert np.array_equal(found, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_exif_orientation_is_applied():
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = decode(encoded(image, exif=exif), "turned.png")
    assert np.array_equal(found, np.asarray(image)[::-1, ::-1])


def test_every_cut_of_a_file_is_refused():
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)), "JPEG")
    for length in range(0, len(data) - 2, 97):
        with pytest.raises(UnreadableImage, match="^cut.jpg: "):
            decode(data[:length], "cut.jpg")


@pytest.mark.parametrize(("kind", "told"), [("f4", "floating-point"), ("i4", "signed")])
def test_values_of_unknown_scale_are_refused(kind, told):
    file = io.BytesIO()
    Image.fromarray(np.linspace(0, 255, 64).reshape(8, 8).astype(kind)).save(file, "TIFF")
    with pytest.raises(UnreadableImage, match=f"a.tif: {told} values, of unknown scale; convert them to 8 or 16 bits"):
        decode(file.getvalue(), "a.tif")


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_upper_byte_in_every_format(form):
    file = io.BytesIO()
    kind = np.int32 if form == "PPM" else np.uint16  # which of them Pillow 10 writes with 16 bits
    Image.fromarray(np.arange(64, dtype=kind).reshape(8, 8) << 10).save(file, form)
    assert np.array_equal(decode(file.getvalue(), "a")[..., 0].ravel(), np.arange(64) << 2)


def tiff(bits, grey, photometric=1, sample_format=1):
    """A grey TIFF file of 8 x 8 values, packed in ``grey``."""
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 273: 134, 277: 1, 278: 8, 279: len(grey)}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (tags | {339: sample_format}).items()]
    return (b"II*\0" + struct.pack("<IH", 8, 10) + b"".join(entries) + bytes(4)).ljust(134, b"\0") + grey


RAMP = np.linspace(0, 255, 64).astype(int)
TWELVE = b"".join(struct.pack(">I", a << 20 | b << 8)[:3] for a, b in zip(16 * RAMP[::2], 16 * RAMP[1::2], strict=True))


@pytest.mark.parametrize(
    ("bits", "photometric", "grey"),
    [
        (8, 0, RAMP.astype("u1").tobytes()),
        (8, 1, RAMP.astype("u1").tobytes()),
        (12, 1, TWELVE),
        (16, 0, (256 * RAMP).astype("<u2").tobytes()),
        (16, 1, (256 * RAMP).astype("<u2").tobytes()),
    ],
    ids=["8-white", "8", "12", "16-white", "16"],
)
def test_grey_of_any_depth_is_as_bright_as_its_file_says(bits, photometric, grey):
    found = decode(tiff(bits, grey, photometric), "grey.tif")
    assert np.array_equal(found[..., 0].reshape(-1), RAMP if photometric else 255 - RAMP)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_signed_values_are_refused(bits):
    with pytest.raises(UnreadableImage, match="signed values, of unknown scale"):
        decode(tiff(bits, bytes(8 * bits), sample_format=2), "signed.tif")


def test_wide_unsigned_values_are_refused():
    with pytest.raises(UnreadableImage, match="32-bit integer values, of unknown scale"):
        decode(tiff(32, bytes(256)), "wide.tif")
