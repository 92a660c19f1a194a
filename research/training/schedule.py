"""Learning-rate schedules: pure functions of the step, so that there is no scheduler whose state could be lost.

Time t is counted in epochs from 0. With E = epochs, W = warmup_epochs, r = decay_rate and x = t / E:

    t < W      warmup_lr + t (lr - warmup_lr) / W        the ramp replaces the first points of the curve, it does not
                                                         shift it; that of tanh ends at the curve's value of t = W
    cosine     min_lr + (lr - min_lr) (1 + cos(pi x)) / 2
    linear     min_lr + (lr - min_lr) (1 - x)
    poly       min_lr + (lr - min_lr) (1 - x)^power
    tanh       min_lr + (lr - min_lr) (1 - tanh(-6 (1 - x) + 4 x)) / 2
    step       lr r^floor(t / decay_epochs), or lr r^(number of milestones <= t); min_lr is no floor here
    constant   lr
    table      the last value of ``lr_table`` whose epoch is <= t

With ``warmup_first`` the first four begin after the warm-up: t - W in place of t, E - W in place of E. They stay at
min_lr for cooldown_epochs more; step and constant have no floor to stay at and ignore them, as timm's schedulers do.
"""

from __future__ import annotations

import math

from research.config import Config
from research.parameters.when import in_epochs


def learning_rate(config: Config, step: int, steps_per_epoch: int, first_epoch: int = 0) -> float:
    """The learning rate of optimizer step ``step``, 0-based; of a training that went on, ``first_epoch`` came first."""
    t = _time(config, step, steps_per_epoch, first_epoch)
    warmup = in_epochs(config.warmup_epochs, "ep", config.epochs, steps_per_epoch)
    if config.schedule_by == "step_executed":
        return _as_gram_trained(config, step, steps_per_epoch, warmup)
    if t < warmup:
        top = _after_warmup(config, warmup, warmup) if config.schedule == "tanh" else config.lr
        return config.warmup_lr + t * (top - config.warmup_lr) / warmup
    return _after_warmup(config, t, warmup)


def _after_warmup(config: Config, t: float, warmup: float) -> float:
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "table":
        return config.lr_table.at(t)
    if config.schedule == "step":
        return config.lr * config.decay_rate ** _decays(config, t)
    shift = min(warmup, config.epochs) if config.warmup_first else 0.0
    done = min((t - shift) / (config.epochs - shift), 1.0) if shift < config.epochs else 1.0
    return config.min_lr + (config.lr - config.min_lr) * _left(config, done)


def _left(config: Config, done: float) -> float:
    """What is left of lr - min_lr when the share ``done`` of the curve is."""
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if config.schedule == "tanh":
        return (1 - math.tanh(-6 * (1 - done) + 4 * done)) / 2 if done < 1 else 0.0
    return (1 - done) ** (config.power if config.schedule == "poly" else 1)


def _time(config: Config, step: int, steps_per_epoch: int, first_epoch: int) -> float:
    """Time in epochs; whole epochs unless the rate moves with every step."""
    if config.schedule_by == "step":
        return step / steps_per_epoch
    epoch = step // steps_per_epoch
    if config.schedule_by == "epoch_executed":
        # What timm's trainer of 2021 did: its epoch counter was raised before the scheduler was asked for counter + 1,
        # so t = 1 never occurs. It did so only where it had evaluated: every train_continuous epochs from its first one
        # on, and when it cools down every epoch.
        evaluated = (epoch - first_epoch) % config.train_continuous == 0 or epoch >= config.epochs
        return epoch + 1 if epoch != first_epoch and evaluated else epoch
    return epoch


def _as_gram_trained(config: Config, step: int, steps_per_epoch: int, warmup: float) -> float:
    """What GraM's trainer did with cosine: a staircase of epochs, and then the curve, one step late.

    Without a warm-up its first two steps share the curve's second rate.
    """
    before = round(warmup * steps_per_epoch)
    if before and step <= before:
        return config.warmup_lr + (config.lr - config.warmup_lr) * (step // steps_per_epoch * steps_per_epoch) / before
    done = max(step - before - 1, 0) if before else max(step, 1)
    total = config.epochs * steps_per_epoch - before
    return config.min_lr + (config.lr - config.min_lr) * _left(config, min(done / total, 1.0))


def _decays(config: Config, t: float) -> int:
    if config.milestones:
        return sum(milestone <= t for milestone in config.milestones)
    return int(t // config.decay_epochs)
