"""The pixels of a batch on the CPU: crop, resample, flip, colour, normalise and cut out in one pass, compiled by numba.

Shapes: image (H, W, C) uint8, contiguous; out (S, S, C) float32, already normalised. ``torch_pixels.py`` is
the same in torch.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

LANES = 8  # rows whose columns are summed together: two SSE or one AVX register of float32


def compiled(function, fastmath=False):
    """njit that releases the GIL and keeps IEEE arithmetic, but for ``fastmath``, even when FFCV calls it.

    Cached on disk where possible.
    """
    try:
        return njit(nogil=True, fastmath=fastmath, cache=True)(function)
    except RuntimeError:  # no place for the cache, such as a read-only installation
        return njit(nogil=True, fastmath=fastmath)(function)


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
    first_scale, first_bias = (np.ones_like(scale), np.zeros_like(bias)) if jitter else (scale, bias)
    if exact:
        _copy(image, top, left, draw.flip, draw.reflect, first_scale, first_bias, out)
    else:
        _resample(image, draw, boxed, cubic, first_scale, first_bias, out)
    if jitter:
        _jitter(draw, out)
        for row in range(size):
            values = out[row].reshape(size * out.shape[2])
            for k in range(len(values)):
                values[k] = values[k] * scale[k] + bias[k]
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
    taps = int(math.ceil(2.0 * support))
    first = np.empty(size, np.int64)
    weights = np.zeros((size, taps), np.float32)
    for i in range(size):
        centre = start + (i + 0.5) * step
        begin = max(low, int(math.floor(centre - support + 0.5)))
        end = min(high, begin + taps, int(math.floor(centre + support + 0.5)))
        total = 0.0
        for k in range(begin, end):
            total += _weight((k + 0.5 - centre) / scale, cubic)
        for k in range(begin, end):
            weights[i, k - begin] = _weight((k + 0.5 - centre) / scale, cubic) / total
        first[i] = begin
    return first, weights


@compiled
def _resample(image, draw, boxed, cubic, scale, bias, out):
    """Shrink or enlarge the box of ``draw`` to the output, rows first, and normalise.

    Both passes run over contiguous memory, which the compiler vectorises: rows are summed as whole lines of the source,
    ``LANES`` of the sums are laid side by side, and columns are summed for all of these at once.
    """
    size, channels = out.shape[0], out.shape[2]
    H, W = image.shape[0], image.shape[1]
    top, left, height, width = float(draw.top), float(draw.left), float(draw.rows), float(draw.columns)
    rows = (int(top), int(top + height)) if boxed else (0, H)
    columns = (int(left), int(left + width)) if boxed else (0, W)
    first_row, row_weights = _filter(top, height, size, rows[0], rows[1], cubic)
    first_column, column_weights = _filter(left, width, size, columns[0], columns[1], cubic)
    begin, end = first_column[0], min(W, first_column[size - 1] + column_weights.shape[1])
    lines, count = image.reshape(H, W * channels), (end - begin) * channels
    line, band = np.empty(count, np.float32), np.empty((count, LANES), np.float32)
    for low in range(0, size, LANES):
        for row in range(low, min(low + LANES, size)):
            _sum_rows(lines[first_row[row] :, begin * channels : end * channels], row_weights[row], line)
            for k in range(count):
                band[k, row - low] = line[k]
        target = out[low : low + LANES]
        _sum_columns(band, first_column - begin, column_weights, draw.flip, cubic, scale, bias, target)


@compiled
def _sum_rows(lines, weights, out):
    """The sum of ``lines`` (at least one, n * C), the first with the first of ``weights`` (T,): out (n * C,)."""
    out[:] = 0.0
    for tap in range(min(len(weights), len(lines))):
        weight, source = weights[tap], lines[tap]
        for k in range(len(out)):
            out[k] += weight * np.float32(source[k])


@compiled
def _sum_columns(band, first, weights, flip, cubic, scale, bias, out):
    """Columns of ``out`` (<= LANES, S, C): ``band`` (n * C, LANES) from ``first`` (S,) on, times ``weights`` (S, T)."""
    rows, size, channels = out.shape
    sums = np.empty(LANES, np.float32)
    for column in range(size):
        to = size - 1 - column if flip else column
        for c in range(channels):
            sums[:] = 0.0
            for tap in range(min(weights.shape[1], len(band) // channels - first[column])):
                weight, source = weights[column, tap], band[(first[column] + tap) * channels + c]
                for lane in range(LANES):
                    sums[lane] += weight * source[lane]
            if cubic:  # its negative lobes overshoot; a stored picture would be cut off there
                for lane in range(LANES):
                    sums[lane] = min(max(sums[lane], np.float32(0)), np.float32(255))
            k = to * channels + c
            for row in range(rows):
                out[row, to, c] = sums[row] * scale[k] + bias[k]


@compiled
def _jitter(draw, out):
    """Brightness, contrast and saturation in the order drawn, each clipped to 0..255 (torchvision's ColorJitter)."""
    values = out.reshape(out.size)
    first = draw.order // 2
    second = (first + 1 + draw.order % 2) % 3
    for change in (first, second, 3 - first - second):
        if change == 0:
            _blend(values, draw.brightness, np.float32(0))
        elif change == 1:
            _blend(values, draw.contrast, _mean_grey(out))
        elif out.shape[2] == 3:
            for row in range(out.shape[0]):
                for column in range(out.shape[1]):
                    _blend(out[row, column], draw.saturation, _grey(out, row, column))


@compiled
def _grey(out, row, column):
    """ITU-R 601 luma, as torchvision."""
    red, green, blue = out[row, column, 0], out[row, column, 1], out[row, column, 2]
    return red * np.float32(0.2989) + green * np.float32(0.587) + blue * np.float32(0.114)


@compiled
def _mean_grey(out):
    total = np.float32(0)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            total += _grey(out, row, column) if out.shape[2] == 3 else out[row, column, 0]
    return np.float32(total / (out.shape[0] * out.shape[1]))


@compiled
def _blend(values, factor, other):
    """``factor * values + (1 - factor) * other``, clipped."""
    rest = (np.float32(1) - factor) * other
    for k in range(len(values)):
        values[k] = min(np.float32(255), max(np.float32(0), factor * values[k] + rest))
