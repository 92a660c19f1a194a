"""One image file, of any format, as uint8 RGB - or the reason why not.

Choices: content decides, not the suffix; EXIF orientation is applied; transparency is dropped; 16-bit values keep their
upper byte; the first frame of an animation is taken; CMYK becomes RGB; more than 89 million pixels are refused before
decoding. Floating-point, 32-bit and signed values are refused: such a file does not say which value is white.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SIXTEEN_BITS = ("PNG", "PPM")  # formats whose 16-bit grey Pillow may open as mode I; nothing wider fits into them
LARGEST = 89_000_000  # pixels; the largest picture of ImageNet has 42 million
LARGEST_FILE = 6 * LARGEST  # bytes: so many pixels with 16 bits a colour, not compressed
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF


class UnreadableImage(ValueError):
    """Why a file is not a usable picture; the message begins with its name."""


def refuse_large(name: str, size: int) -> None:
    """Raise :class:`UnreadableImage` for a file of ``size`` bytes that no picture needs, before it is read."""
    if size > LARGEST_FILE:
        raise UnreadableImage(f"{name}: {size:,} bytes; the limit is {LARGEST_FILE // 10**6} million")


def decode(data: bytes, name: str) -> np.ndarray:
    """The picture in ``data`` as uint8 (H, W, 3); raises :class:`UnreadableImage`, never returns a wrong picture."""
    if not data:
        raise UnreadableImage(f"{name}: empty file")
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > LARGEST:
                raise UnreadableImage(f"{name}: {width} x {height} pixels; the limit is {LARGEST // 10**6} million")
            image.load()
            tags = image.tag_v2 if image.format == "TIFF" else {}
            if kind := _unknown_scale(image, tags):
                raise UnreadableImage(f"{name}: {kind} values, of unknown scale; convert them to 8 or 16 bits")
            return _rgb(ImageOps.exif_transpose(image), tags)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"{name}: not an image ({_kind(data)}, {len(data):,} bytes)") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, bomb errors …
        raise UnreadableImage(f"{name}: {str(error) or type(error).__name__} ({len(data):,} bytes)") from None


def _unknown_scale(image: Image.Image, tags: Mapping[int, Any]) -> str:
    """The kind of pixel values if their white is unknown, such as floating-point ones; else empty."""
    if 2 in tags.get(SAMPLE_FORMAT, ()):
        return "signed"
    if image.mode == "I" and image.format not in SIXTEEN_BITS:
        return "32-bit integer"
    return "floating-point" if image.mode == "F" else ""


def _rgb(image: Image.Image, tags: Mapping[int, Any]) -> np.ndarray:
    if image.mode.startswith("I"):  # 12 or 16-bit grey; Pillow's own conversion would clip it to white
        (bits,) = tags.get(BITS, (16,))
        grey = (np.asarray(image).astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8)
        grey = 255 - grey if tags.get(PHOTOMETRIC) == 0 else grey  # 0: the smallest value is white
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "P":
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _kind(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")) or b"<html" in start:
        return "HTML"
    try:
        return "text" if start.decode().isprintable() or b"\n" in start else "unknown format"
    except UnicodeDecodeError:
        return "unknown format"
