"""Joint histograms of pairs of pixels on the CPU, compiled by numba: what ``nmi_torch`` does, exactly, and faster.

Each channel's values are binned once for every range that occurs among its windows (mostly one), into bytes that stay
in cache, and four taps are counted at a time, so that increments of one cell do not wait for each other. Where a tap,
its mirror image and the centre share one range, the mirror's histogram is the transpose of the tap's, corrected by the
pairs at the border that only one of them has. Threads share channels, and images where channels are few.

Shapes as in ``nmi.py``. Indices are unsigned because numba guards signed ones against being negative.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from research.data.pixel_kernels import compiled
from research.measures.nmi_torch import scales

if TYPE_CHECKING:
    from research.measures.nmi import Geometry

CHANNELS = 16  # a job's; in channels-last memory they share a cache line
CACHED = 1 << 17  # bytes of one plane of bins
TABLE = np.array([0.0, *(count * np.log(count) for count in range(1, 4096))])  # c log c; counts are mostly small


def counts(x: Tensor, geometry: Geometry, low: Tensor, high: Tensor, bins: Tensor, finite: Tensor) -> Tensor:
    """Joint histograms, int64 (C, T, b, b) with b the largest of ``bins``."""
    largest, sparse = int(bins.max()), geometry.variant == "sparse"
    side = largest + sparse  # zeros get a bin of their own, which is cut off at the end
    scale = scales(low, high, bins).numpy()
    how = low.double().numpy(), scale, (bins - 1).double().numpy(), largest if sparse else -1, finite.numpy()
    where = _table(geometry), np.array(geometry.padding), np.array(x.shape[2:])

    def count(maps: np.ndarray, first: int, out: np.ndarray) -> None:
        count_maps(maps, first, *where, *how, geometry.variant == "center", out)

    parts = -(-2 * torch.get_num_threads() // -(-x.shape[1] // CHANNELS)) if torch.get_num_threads() > 1 else 1
    out = np.zeros((min(parts, len(x)), *bins.shape, side * side), np.int64)
    _share(x, count, out)
    total = out[0] if len(out) == 1 else out.sum(0)
    return torch.from_numpy(total.reshape(*bins.shape, side, side)[..., :largest, :largest]).contiguous()


def sparse_ranges(x: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
    """(low (2, C, T), high (2, C, T), pairs (C, T)) over the pairs without a zero; without any: inf and -inf."""
    table, width = _table(geometry), x.shape[3]
    shape = 1, x.shape[1], len(geometry.pairings)
    extremes = np.empty((*shape, 5), np.float64)  # exact for float32 values, and for counts up to 2^53

    def search(maps: np.ndarray, first: int, out: np.ndarray) -> None:
        find_ranges(maps, first, table, width, out)

    _share(x, search, extremes)
    low, high = (torch.from_numpy(extremes[0, ..., at : at + 2]).permute(2, 0, 1).float() for at in (0, 2))
    return low.contiguous(), high.contiguous(), torch.from_numpy(extremes[0, ..., 4]).long().contiguous()


def _share(x: Tensor, work: Callable[[np.ndarray, int, np.ndarray], None], out: np.ndarray) -> None:
    """``work(maps (B', C', H * W), first channel, out[part])`` for all channels and ``len(out)`` parts of images."""
    values = x.numpy()
    images = np.linspace(0, len(x), len(out) + 1).astype(int)

    def job(part: int, first: int) -> None:
        maps = np.ascontiguousarray(values[images[part] : images[part + 1], first : first + CHANNELS])
        work(maps.reshape(*maps.shape[:2], -1), first, out[part])

    jobs = [(part, first) for part in range(len(out)) for first in range(0, x.shape[1], CHANNELS)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(job, *zip(*jobs, strict=True)))


def _table(geometry: Geometry) -> np.ndarray:
    """A row for each pairing: top and left of x, top and left of y, height, width, index of the mirror or -1."""
    index = {pairing.tap: t for t, pairing in enumerate(geometry.pairings)}
    return np.array([(*p.x, *p.y, *p.size, index.get(p.mirror, -1)) for p in geometry.pairings], np.int64)


@compiled
def count_maps(maps, first, table, padding, size, low, scale, last, zero_bin, finite, aligned, out):
    """Count channels ``first`` … of ``maps`` (B, C', H * W) into ``out`` (C, T, side * side), which starts at zero.

    ``low`` and ``scale`` (2, C, T), ``last`` (C, T): how values become bins. ``aligned``: all pairings share one
    rectangle of centre pixels. ``zero_bin``: the bin of exact zeros, or -1.
    """
    height, width = size[0] + padding[0] + padding[1], size[1] + padding[2] + padding[3]
    block = max(1, CACHED // (height * width))
    taps, side = len(table), int(np.sqrt(out.shape[2]))
    q = np.empty((2 * taps, block * height * width), np.uint8)
    plane, ranges = np.empty((2, taps), np.int64), np.empty((2 * taps, 3))
    order, tied = np.empty(taps, np.int64), np.empty(taps, np.bool_)
    for channel in range(maps.shape[1]):
        c = first + channel
        if not finite[c]:
            continue
        distinct = _planes(low[:, c], scale[:, c], last[c], plane, ranges)
        counted = 0
        for t in range(taps):
            mirror = table[t, 6]
            tied[t] = aligned and mirror >= 0 and plane[1, t] == plane[0, t] and plane[1, mirror] == plane[0, t]
            if not tied[t] or t < mirror:
                order[counted] = t
                counted += 1
        for start in range(0, len(maps), block):
            images = min(block, len(maps) - start)
            for p in range(distinct):
                for image in range(images):
                    target = q[p, image * height * width : (image + 1) * height * width].reshape((height, width))
                    source = maps[start + image, channel].reshape((size[0], size[1]))
                    _bin(source, padding[0], padding[2], ranges[p, 0], ranges[p, 1], ranges[p, 2], zero_bin, target)
            _count_block(q, plane, table, order[:counted], aligned, images, height, width, side, out[c])
            for t in order[:counted]:
                if tied[t]:
                    _count_border(q[plane[0, t]], table[t], images, height, width, side, out[c, table[t, 6]])
        for t in order[:counted]:
            if tied[t]:
                mirrored = out[c, table[t, 6]].reshape((side, side))
                mirrored += out[c, t].reshape((side, side)).T


@compiled
def _planes(low, scale, last, plane, ranges):
    """Number the distinct ranges of one channel: ``ranges`` gets them, ``plane`` (2, T) the number of each window's."""
    distinct = 0
    for t in range(len(last)):
        for s in range(2):
            p = 0
            while p < distinct and not (
                ranges[p, 0] == low[s, t] and ranges[p, 1] == scale[s, t] and ranges[p, 2] == last[t]
            ):
                p += 1
            if p == distinct:
                ranges[p] = low[s, t], scale[s, t], last[t]
                distinct += 1
            plane[s, t] = p
    return distinct


@compiled
def _bin(source, top, left, low, scale, last, zero_bin, target):
    """Bins of one image's channel (H, W) into the middle of its padded ``target``; the border holds zeros' bin."""
    at = (0.0 - low) * scale
    border = np.uint8(np.int32(min(max(at, 0.0), last)))
    target[:] = border if zero_bin < 0 else np.uint8(zero_bin)
    for row in range(source.shape[0]):
        values, bins = source[row], target[top + row, left : left + source.shape[1]]
        for column in range(len(values)):
            at = (np.float64(values[column]) - low) * scale
            at = at if at > 0.0 else 0.0
            at = at if at < last else last
            bins[column] = np.uint8(np.int32(at))
        if zero_bin >= 0:
            for column in range(len(values)):
                if values[column] == 0:
                    bins[column] = np.uint8(zero_bin)


@compiled
def _count_block(q, plane, table, order, aligned, images, height, width, side, out):
    """Count the taps of ``order`` in ``images`` planes of bins; four at a time where they share the centre pixels."""
    flat, span, step = q.reshape(-1), q.shape[1], 4 if aligned else 1
    area, stride, side = np.uint64(height * width), np.uint64(width), np.uint64(side)
    t = 0
    while t < len(order):
        if t + step > len(order):
            step = 1
        x_top, x_left, _, _, rows, columns, _ = table[order[t]]
        x = np.uint64(plane[0, order[t]] * span + x_top * width + x_left)
        y = np.empty(step, np.uint64)
        for i in range(step):
            _, _, y_top, y_left, _, _, _ = table[order[t + i]]
            y[i] = plane[1, order[t + i]] * span + y_top * width + y_left
        shape = np.uint64(images), area, np.uint64(rows), stride, np.uint64(columns)
        if step == 4:
            of = order[t : t + 4]
            _count_four(flat, x, y[0], y[1], y[2], y[3], shape, side, out[of[0]], out[of[1]], out[of[2]], out[of[3]])
        else:
            _count_one(flat, x, y[0], shape, side, out[order[t]])
        t += step


@compiled
def _count_four(q, x, y0, y1, y2, y3, shape, side, out0, out1, out2, out3):
    images, area, rows, stride, columns = shape
    for image in range(images):
        for row in range(rows):
            start = image * area + row * stride
            for i in range(start, start + columns):
                cell = np.uint64(q[x + i]) * side
                out0[cell + np.uint64(q[y0 + i])] += 1
                out1[cell + np.uint64(q[y1 + i])] += 1
                out2[cell + np.uint64(q[y2 + i])] += 1
                out3[cell + np.uint64(q[y3 + i])] += 1


@compiled
def _count_one(q, x, y, shape, side, out):
    images, area, rows, stride, columns = shape
    for image in range(images):
        for row in range(rows):
            start = image * area + row * stride
            for i in range(start, start + columns):
                out[np.uint64(q[x + i]) * side + np.uint64(q[y + i])] += 1


@compiled
def _count_border(q, tap, images, height, width, side, out):
    """What the mirror of ``tap`` has beyond the transpose of the tap's histogram, added to the mirror's ``out``.

    The tap pairs p with p + d for p in the centre rectangle R, its mirror p' = p + d with p for p in R - d: add the
    pairs of R - d outside R and subtract those of R outside R - d.
    """
    top, left, y_top, y_left, rows, columns, _ = tap
    dy, dx = y_top - top, y_left - left
    for image in range(images):
        start = image * height * width
        for sign, own_top, own_left, other_top, other_left in (
            (1, top - dy, left - dx, top, left),
            (-1, top, left, top - dy, left - dx),
        ):
            for row in range(own_top, own_top + rows):
                begin, end = own_left, own_left + columns
                if other_top <= row < other_top + rows:  # the rest of the row is in both
                    if other_left > own_left:
                        end = min(end, other_left)
                    else:
                        begin = max(begin, other_left + columns)
                for p in range(start + row * width + begin, start + row * width + end):
                    out[np.uint64(q[p + dy * width + dx]) * np.uint64(side) + np.uint64(q[p])] += sign


def nmi(counts: Tensor, sparse: bool) -> Tensor:
    """NMI of every joint histogram (C, T, b, b), float64 (C, T): what :func:`research.measures.nmi_torch.nmi` gives."""
    values = np.empty(counts.shape[:2])
    _nmi(counts.numpy(), sparse, TABLE, values)
    return torch.from_numpy(values)


@compiled
def _count_log_count(count, table):
    return table[count] if count < len(table) else count * np.log(count)


@compiled
def _nmi(counts, sparse, table, out):
    """With N pairs, H = log N - (sum of c log c) / N over the cells, rows or columns c of a histogram."""
    bins = counts.shape[2]
    rows, columns = np.empty(bins, np.int64), np.empty(bins, np.int64)
    for channel in range(counts.shape[0]):
        for t in range(counts.shape[1]):
            histogram = counts[channel, t]
            rows[:] = 0
            columns[:] = 0
            joint, pairs, occupied = 0.0, 0, 0
            for i in range(bins):
                for j in range(bins):
                    count = 0 if sparse and i == j else histogram[i, j]
                    if count:
                        rows[i] += count
                        columns[j] += count
                        joint += _count_log_count(count, table)
                        occupied += 1
                pairs += rows[i]
            of_x, of_y, levels_x, levels_y = 0.0, 0.0, 0, 0
            for i in range(bins):
                of_x += _count_log_count(rows[i], table)
                of_y += _count_log_count(columns[i], table)
                levels_x += rows[i] > 0
                levels_y += columns[i] > 0
            if occupied <= 1:
                out[channel, t] = 0.0 if sparse else np.nan
            elif levels_x <= 1 or levels_y <= 1:  # one side is constant: exactly 0, whatever rounds
                out[channel, t] = 0.0
            else:
                whole = np.log(pairs)
                entropy = whole - joint / pairs
                shared = (whole - of_x / pairs) + (whole - of_y / pairs) - entropy
                out[channel, t] = min(max(shared / entropy, 0.0), 1.0)


@compiled
def find_ranges(maps, first, table, width, out):
    """Extrema of x and y and number of the pairs without a zero, of channels ``first`` … into ``out`` (C, T, 5)."""
    none = np.float32(np.inf)
    for channel in range(maps.shape[1]):
        for t in range(len(table)):
            x_top, x_left, y_top, y_left, rows, columns, _ = table[t]
            low_x = low_y = none
            high_x = high_y = -none
            pairs = 0
            for image in range(len(maps)):
                for row in range(rows):
                    xs = maps[image, channel, (x_top + row) * width + x_left :]
                    ys = maps[image, channel, (y_top + row) * width + y_left :]
                    for column in range(np.uint64(columns)):
                        x, y = xs[column], ys[column]
                        kept = (x != 0) & (y != 0)  # selected, not branched on: every second branch would be a miss
                        low_x = x if kept & (x < low_x) else low_x
                        high_x = x if kept & (x > high_x) else high_x
                        low_y = y if kept & (y < low_y) else low_y
                        high_y = y if kept & (y > high_y) else high_y
                        pairs += kept
            row = out[first + channel, t]
            row[0], row[1], row[2], row[3], row[4] = low_x, low_y, high_x, high_y, pairs
