"""PowerGrad's gradient on the CPU, compiled by numba: one pass over the logits where torch needs five."""

from __future__ import annotations

from functools import partial

import numpy as np

from research.data.pixel_kernels import compiled

LOWEST = np.float32(-87.0)  # below it, exp is beneath the smallest normal float32 and counts as 0
LOG2_E, LN_2, LN_2_REST = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
SERIES = tuple(
    np.float32(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)


@partial(compiled, fastmath={"contract"})
def _exp(x):
    """exp of float32 in [-87, 88] to 2 units in the last place, as Cephes has it; no branch, so that it is vectorised.

    numba's own calls the C library for one number at a time.
    """
    power = np.floor(x * LOG2_E + np.float32(0.5))
    rest = (x - power * LN_2) - power * LN_2_REST
    series = SERIES[0]
    series = series * rest + SERIES[1]
    series = series * rest + SERIES[2]
    series = series * rest + SERIES[3]
    series = series * rest + SERIES[4]
    series = series * rest + SERIES[5]
    series = series * rest * rest + rest + np.float32(1)
    return series * np.int32((np.int32(power) + np.int32(127)) << np.int32(23)).view(np.float32)


@partial(compiled, fastmath={"contract", "reassoc"})  # sums may be taken in the order that a vector unit likes
def gradient(log_p, target, ignore_index, upstream, alpha, smoothing, out):
    """(softmax(alpha log_p) - q) * upstream / rows into ``out`` (N, C); q is the smoothed ``target``, int64 (N,).

    All other numbers are float32. Rows whose target is ``ignore_index`` count as none and get 0. The largest log_p of a
    row is at least -log C, so for alpha log C < 87 nothing need be subtracted before exp.
    """
    classes, rows = log_p.shape[1], 0
    for row in range(len(target)):
        rows += target[row] != ignore_index
    scale = upstream / np.float32(max(rows, 1))
    spread = scale * smoothing / np.float32(classes)
    for row in range(len(log_p)):
        values, result = log_p[row], out[row]
        if target[row] == ignore_index:
            result[:] = 0
            continue
        total = np.float32(0)
        for k in range(classes):
            x = alpha * values[k]
            power = _exp(max(x, LOWEST)) if x > LOWEST else np.float32(0)
            result[k] = power
            total += power
        share = scale / total if total > 0 else np.float32(np.nan)  # of logits that are no numbers
        for k in range(classes):
            result[k] = result[k] * share - spread
        result[target[row]] -= scale * (np.float32(1) - smoothing)
