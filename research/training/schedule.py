"""Learning-rate schedules: pure functions of the step, so that there is no scheduler whose state could be lost.

Time t is counted in epochs from 0. With E = epochs, W = warmup_epochs, r = decay_rate:

    t < W      warmup_lr + t (lr - warmup_lr) / W        the ramp replaces the first points of the curve, it does not
                                                         shift it
    cosine     min_lr + (lr - min_lr) (1 + cos(pi t / E)) / 2
    linear     min_lr + (lr - min_lr) (1 - t / E)
    step       lr r^floor(t / decay_epochs), or lr r^(number of milestones <= t); min_lr is no floor here
    constant   lr
    table      the last value of ``lr_table`` whose epoch is <= t

With ``warmup_first`` cosine and linear begin after the warm-up: t - W in place of t, E - W in place of E.

Cosine and linear stay at min_lr for cooldown_epochs more; step and constant have no floor to stay at and ignore them,
as timm's schedulers do.
"""

from __future__ import annotations

import math

from research.config import Config
from research.parameters.when import in_epochs


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimizer step ``step`` (0-based, counted over the whole run)."""
    t = _time(config, step, steps_per_epoch)
    warmup = in_epochs(config.warmup_epochs, "ep", config.epochs, steps_per_epoch)
    if t < warmup:
        return config.warmup_lr + t * (config.lr - config.warmup_lr) / warmup
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "table":
        return config.lr_table.at(t)
    if config.schedule == "step":
        return config.lr * config.decay_rate ** _decays(config, t)
    shift = min(warmup, config.epochs) if config.warmup_first else 0.0
    done = min((t - shift) / (config.epochs - shift), 1.0) if shift < config.epochs else 1.0
    left = (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else 1 - done
    return config.min_lr + (config.lr - config.min_lr) * left


def _time(config: Config, step: int, steps_per_epoch: int) -> float:
    """Time in epochs; whole epochs unless the rate moves with every step."""
    if config.schedule_by == "step":
        return step / steps_per_epoch
    epoch = step // steps_per_epoch
    if config.schedule_by == "epoch_executed":
        # What timm's trainer of 2021 did: its epoch counter was raised before the scheduler was asked for counter + 1,
        # so t = 1 never occurs.
        return epoch + 1 if epoch else 0
    return epoch


def _decays(config: Config, t: float) -> int:
    if config.milestones:
        return sum(milestone <= t for milestone in config.milestones)
    return int(t // config.decay_epochs)
