"""The pixels of a batch in torch: the same result as ``pixel_kernels.py``, for GPUs and where numba is missing.

Shapes: pixels flat uint8; out (B, S, S, C) float32, normalised. All on one device, without host synchronisation.
"""

from __future__ import annotations

import math

import numpy as np
import torch

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, as torchvision


def render(pixels, offsets, heights, widths, draws, finish, size, taps) -> torch.Tensor:
    """Render B images whose flat store, offsets, heights and widths (B,) and ``draws`` (dict of (B,)) are tensors.

    ``finish`` = (scale (S, C), bias (S, C), cutout side, colours change?, crop before resizing?, bicubic?); ``taps`` is
    the largest number of filter taps among them, 0 when no image is resized.
    """
    scale, _, _, jitter, boxed, cubic = finish
    image = (pixels, offsets, heights, widths, scale.shape[1])
    x = _resample(image, draws, size, taps, boxed, cubic) if taps else _copy(image, draws, size)
    x = torch.where(draws["flip"].bool()[:, None, None, None], x.flip(2), x)
    if jitter:
        x = _jitter(x, draws)
    return finished(x, draws, finish)


def finished(x: torch.Tensor, draws, finish) -> torch.Tensor:
    """Pixels ``x`` (B, S, S, C) of any type, normalised and cut out as ``draws`` says: new memory, float32."""
    size, (scale, bias, cutout, *_) = x.shape[1], finish
    x = x * scale + bias
    if cutout:
        at, half = torch.arange(size, device=x.device), cutout // 2
        row, column = draws["cut_row"].long()[:, None], draws["cut_column"].long()[:, None]
        inside_rows = (at >= row - half) & (at < row + half)
        inside_columns = (at >= column - half) & (at < column + half)
        x = x.masked_fill((inside_rows[:, :, None] & inside_columns[:, None, :])[..., None], 0.0)
    return x


def taps_needed(draws: np.ndarray, size: int, cubic: bool) -> int:
    """Filter taps that the largest of ``draws`` needs (see ``pixel_kernels._filter``); 0 when none is resized."""
    rows, columns = draws["rows"], draws["columns"]
    whole = (draws["top"] % 1 == 0) & (draws["left"] % 1 == 0)
    if ((rows == size) & (columns == size) & whole).all():
        return 0
    return math.ceil(max(rows.max() / size, columns.max() / size, 1.0) * (4 if cubic else 2))


def _fetch(image, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Pixels at rows (B, R) x columns (B, S) as float32 (B, R, S, C); those outside the image are 0."""
    pixels, offsets, heights, widths, channels = image
    inside = ((rows >= 0) & (rows < heights[:, None]))[:, :, None] & ((columns >= 0) & (columns < widths[:, None]))[
        :, None, :
    ]
    at = (rows[:, :, None] * widths[:, None, None] + columns[:, None, :]) * channels + offsets[:, None, None]
    at = torch.where(inside, at, 0)[..., None] + torch.arange(channels, device=at.device)
    return torch.where(inside[..., None], pixels[at].float(), 0.0)


def _copy(image, draws, size: int) -> torch.Tensor:
    at, reflect = torch.arange(size, device=image[0].device), draws["reflect"].bool()[:, None]
    rows, columns = (draws[name].long()[:, None] + at for name in ("top", "left"))
    rows = torch.where(reflect, _reflected(rows, image[2][:, None]), rows)
    columns = torch.where(reflect, _reflected(columns, image[3][:, None]), columns)
    return _fetch(image, rows, columns)


def _reflected(i: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    """See ``pixel_kernels._reflected``."""
    return extent - 1 - (extent - 1 - i.abs()).abs()


def _filter(start, extent, size: int, taps: int, low, high, cubic: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """First tap (B, S) and weights (B, S, taps) of the filter; see ``pixel_kernels._filter``."""
    start, step = start.double()[:, None], (extent.double() / size)[:, None]
    scale = step.clamp(min=1.0)
    support = scale * (2.0 if cubic else 1.0)
    centre = start + (torch.arange(size, device=start.device) + 0.5) * step
    begin = torch.maximum((centre - support + 0.5).floor().long(), low[:, None])
    end = torch.minimum((centre + support + 0.5).floor().long(), high[:, None])
    at = begin[..., None] + torch.arange(taps, device=start.device)
    weights = _weight(((at + 0.5 - centre[..., None]) / scale[..., None]).abs(), cubic)
    weights = torch.where(at < end[..., None], weights, 0.0)
    return begin, (weights / weights.sum(-1, keepdim=True)).float()


def _weight(x: torch.Tensor, cubic: bool) -> torch.Tensor:
    """The filter at distance ``x`` >= 0; see ``pixel_kernels._weight``."""
    if not cubic:
        return (1.0 - x).clamp(min=0.0)
    outer = torch.where(x < 2.0, ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0, 0.0)
    return torch.where(x < 1.0, (1.5 * x - 2.5) * x * x + 1.0, outer)


def _resample(image, draws, size: int, taps: int, boxed: bool, cubic: bool) -> torch.Tensor:
    heights, widths = image[2], image[3]
    top, left, height, width = (draws[name] for name in ("top", "left", "rows", "columns"))
    zero = torch.zeros_like(heights)
    rows = (top.long(), (top + height).long()) if boxed else (zero, heights)
    columns = (left.long(), (left + width).long()) if boxed else (zero, widths)
    first_row, row_weights = _filter(top, height, size, taps, *rows, cubic)
    first_column, column_weights = _filter(left, width, size, taps, *columns, cubic)
    x = torch.zeros((), device=top.device)
    for tap in range(taps):
        line = torch.zeros((), device=top.device)
        for row_tap in range(taps):
            fetched = _fetch(image, first_row + row_tap, first_column + tap)
            line = line + row_weights[:, :, row_tap, None, None] * fetched
        x = x + column_weights[:, None, :, tap, None] * line
    return x.clamp(0.0, 255.0) if cubic else x  # negative lobes overshoot; a stored picture would be cut off there


def _jitter(x: torch.Tensor, draws) -> torch.Tensor:
    """Brightness, contrast and saturation, each image in its own order; see ``pixel_kernels._jitter``."""
    factors = [draws[name][:, None, None, None] for name in ("brightness", "contrast", "saturation")]
    first = draws["order"].long() // 2
    second = (first + 1 + draws["order"].long() % 2) % 3
    for turn in (first, second, 3 - first - second):
        grey = sum(weight * x[..., c : c + 1] for c, weight in enumerate(GREY)) if x.shape[-1] == 3 else x
        others = (torch.zeros_like(grey), grey.mean((1, 2, 3), keepdim=True), grey)
        for change, (factor, other) in enumerate(zip(factors, others, strict=True)):
            blended = (factor * x + (1 - factor) * other).clamp(0.0, 255.0)
            x = torch.where((turn == change)[:, None, None, None], blended, x)
    return x
