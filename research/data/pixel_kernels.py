"""The pixels of a batch on the CPU: crop, resample, flip, colour, normalise and cut out in one pass, compiled by numba.

Shapes: image (H, W, C) uint8; out (S, S, C) float32, already normalised. ``torch_pixels.py`` is the same in torch.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


def compiled(function):
    """njit that releases the GIL and keeps IEEE arithmetic even when FFCV calls it; cached on disk where possible."""
    try:
        return njit(nogil=True, fastmath=False, cache=True)(function)
    except RuntimeError:  # no place for the cache, such as a read-only installation
        return njit(nogil=True, fastmath=False)(function)


@compiled
def render_batch(pixels, offsets, heights, widths, rows, draws, finish, out):
    """Render samples ``rows`` (B,) of a flat store of images into ``out`` (B, S, S, C); see :func:`render`."""
    channels = out.shape[3]
    for b in range(len(rows)):
        row = rows[b]
        height, width = heights[row], widths[row]
        start = offsets[row]
        image = pixels[start : start + height * width * channels].reshape((height, width, channels))
        render(image, draws[b], finish, out[b])


@compiled
def render(image, draw, finish, out):
    """Render one image as ``draw`` (a DRAW record) says.

    ``finish`` = (scale (S * C,), bias (S * C,), cutout side, colours change?, crop before resizing?, bicubic?): a line
    of pixels becomes ``line * scale + bias``; a crop before resizing keeps the filter from seeing beyond the box.
    """
    scale, bias, cutout, jitter, boxed, cubic = finish
    size = out.shape[0]
    top, left = int(math.floor(draw.top)), int(math.floor(draw.left))
    exact = draw.rows == size and draw.columns == size and draw.top == top and draw.left == left
    if exact and not jitter:
        _copy(image, top, left, draw.flip, draw.reflect, scale, bias, out)
    else:
        if exact:
            _copy(image, top, left, draw.flip, draw.reflect, np.ones_like(scale), np.zeros_like(bias), out)
        else:
            _resample(image, draw, boxed, cubic, out)
        if jitter:
            _jitter(draw, out)
        for row in range(size):
            for column in range(size):
                for c in range(out.shape[2]):
                    out[row, column, c] = out[row, column, c] * scale[c] + bias[c]
    if cutout:
        half = cutout // 2
        for row in range(max(0, draw.cut_row - half), min(size, draw.cut_row + half)):
            for column in range(max(0, draw.cut_column - half), min(size, draw.cut_column + half)):
                for c in range(out.shape[2]):
                    out[row, column, c] = 0.0


@compiled
def _copy(image, top, left, flip, reflect, scale, bias, out):
    """Copy the window at (top, left); beyond the image, its reflection or zero pixels.

    A line is assembled as bytes and then converted in one loop over all its values, which the compiler vectorises.
    """
    size, channels = out.shape[0], out.shape[2]
    first, last = max(0, -left), min(size, image.shape[1] - left)
    count = max(0, last - first)
    line = np.zeros((size, channels), np.uint8)
    begin = size - last if flip else first
    target, flat = line[begin : begin + count], line.reshape(size * channels)
    for row in range(size):
        values = out[row].reshape(size * channels)
        at = _reflected(top + row, image.shape[0]) if reflect else top + row
        if not 0 <= at < image.shape[0]:
            values[:] = bias
            continue
        source = image[at, left + first : left + last]
        for x in range(count):
            to = count - 1 - x if flip else x
            if channels == 3:  # spelt out: a loop over three bytes costs as much as everything else
                target[to, 0], target[to, 1], target[to, 2] = source[x, 0], source[x, 1], source[x, 2]
            else:
                for c in range(channels):
                    target[to, c] = source[x, c]
        if reflect:
            for x in range(size - count):  # the columns beside the image
                column = x if x < first else x + count
                to, beside = size - 1 - column if flip else column, _reflected(left + column, image.shape[1])
                for c in range(channels):
                    line[to, c] = image[at, beside, c]
        for k in range(size * channels):
            values[k] = np.float32(flat[k]) * scale[k] + bias[k]


@compiled
def _reflected(i, extent):
    """Where pixel ``i`` of an axis that is mirrored at its first and last pixel lies; -extent < i < 2 extent - 1."""
    return extent - 1 - abs(extent - 1 - abs(i))


@compiled
def _weight(distance, cubic):
    """The filter at ``distance`` from its centre: a triangle, or Keys' cubic with a = -0.5, as Pillow has them."""
    x = abs(distance)
    if not cubic:
        return max(0.0, 1.0 - x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0 if x < 2.0 else 0.0


@compiled
def _filter(start, extent, size, low, high, cubic):
    """Weights of the filter that shrinks ``extent`` source pixels to ``size``: first tap (S,), weights (S, T).

    Antialiased bilinear or bicubic resampling, as Pillow and torchvision do; taps are kept within [low, high).
    """
    step = extent / size
    scale = max(step, 1.0)
    support = scale * (2.0 if cubic else 1.0)
    taps = int(math.ceil(support)) * 2 + 1
    first = np.empty(size, np.int64)
    weights = np.zeros((size, taps), np.float32)
    for i in range(size):
        centre = start + (i + 0.5) * step
        begin = max(low, int(math.floor(centre - support + 0.5)))
        end = min(high, int(math.floor(centre + support + 0.5)))
        total = 0.0
        for k in range(begin, end):
            total += _weight((k + 0.5 - centre) / scale, cubic)
        for k in range(begin, end):
            weights[i, k - begin] = _weight((k + 0.5 - centre) / scale, cubic) / total
        first[i] = begin
    return first, weights


@compiled
def _resample(image, draw, boxed, cubic, out):
    """Shrink or enlarge the box of ``draw`` to the output, columns first, without normalising."""
    size, channels = out.shape[0], out.shape[2]
    H, W = image.shape[0], image.shape[1]
    top, left, height, width = float(draw.top), float(draw.left), float(draw.rows), float(draw.columns)
    rows = (int(top), int(top + height)) if boxed else (0, H)
    columns = (int(left), int(left + width)) if boxed else (0, W)
    first_row, row_weights = _filter(top, height, size, rows[0], rows[1], cubic)
    first_column, column_weights = _filter(left, width, size, columns[0], columns[1], cubic)
    begin = first_row[0]
    end = min(H, first_row[size - 1] + row_weights.shape[1])
    narrow = np.empty((end - begin, size, channels), np.float32)
    for row in range(end - begin):
        for column in range(size):
            at = first_column[column]
            target = size - 1 - column if draw.flip else column
            for c in range(channels):
                narrow[row, target, c] = 0.0
            for tap in range(min(column_weights.shape[1], W - at)):
                weight = column_weights[column, tap]
                for c in range(channels):
                    narrow[row, target, c] += weight * np.float32(image[begin + row, at + tap, c])
    for row in range(size):
        out[row] = 0.0
        for tap in range(min(row_weights.shape[1], H - first_row[row])):
            weight, source = row_weights[row, tap], first_row[row] - begin + tap
            for column in range(size):
                for c in range(channels):
                    out[row, column, c] += weight * narrow[source, column, c]
        if cubic:  # its negative lobes overshoot; a stored picture would be cut off there
            for column in range(size):
                for c in range(channels):
                    out[row, column, c] = min(max(out[row, column, c], 0.0), 255.0)


@compiled
def _jitter(draw, out):
    """Brightness, contrast and saturation in the order drawn, each clipped to 0..255 (torchvision's ColorJitter)."""
    first = draw.order // 2
    second = (first + 1 + draw.order % 2) % 3
    for change in (first, second, 3 - first - second):
        if change == 0:
            _blend(out, draw.brightness, np.zeros((1, 1), np.float32))
        elif out.shape[2] == 3:
            grey = (
                out[:, :, 0] * np.float32(0.2989) + out[:, :, 1] * np.float32(0.587) + out[:, :, 2] * np.float32(0.114)
            )
            if change == 1:
                _blend(out, draw.contrast, np.full((1, 1), np.mean(grey), np.float32))
            else:
                _blend(out, draw.saturation, grey)
        elif change == 1:
            _blend(out, draw.contrast, np.full((1, 1), np.mean(out), np.float32))


@compiled
def _blend(out, factor, other):
    """``factor * out + (1 - factor) * other``; ``other`` (S, S), or (1, 1) for one value everywhere."""
    whole = other.shape[0] == 1
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            rest = (np.float32(1) - factor) * (other[0, 0] if whole else other[row, column])
            for c in range(out.shape[2]):
                out[row, column, c] = min(np.float32(255), max(np.float32(0), factor * out[row, column, c] + rest))
