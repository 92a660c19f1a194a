"""One image file, whatever is in it, as uint8 RGB - or the reason why not.

Choices: content decides, not the suffix; EXIF orientation is applied; transparency is dropped; 16-bit values keep their
upper byte; of an animation the first frame is taken; CMYK becomes RGB; more than 89 million pixels are refused unseen.
Floating-point and 32-bit values are refused: no file says which of them is white.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SIXTEEN_BITS = ("PNG", "PPM")  # formats whose 16-bit grey Pillow may open as mode I; nothing wider fits into them
LARGEST = 89_000_000  # pixels; the largest picture of ImageNet has 42 million


class UnreadableImage(ValueError):
    """Why a file is not a usable picture; the message begins with its name."""


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
            if image.mode == "F" or (image.mode == "I" and image.format not in SIXTEEN_BITS):
                kind = "floating-point" if image.mode == "F" else "32-bit integer"
                raise UnreadableImage(f"{name}: {kind} values, of unknown scale; convert them to 8 or 16 bits")
            return _rgb(ImageOps.exif_transpose(image))
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"{name}: not an image ({_kind(data)}, {len(data):,} bytes)") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, bomb errors …
        raise UnreadableImage(f"{name}: {str(error) or type(error).__name__} ({len(data):,} bytes)") from None


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to white
        grey = np.asarray(image).astype(np.int64) >> 8
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
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
