"""Mixed precision against a training loop that is written out here, in plain arithmetic and without any method's code.

Under fp16 gradients of two steps overflow, of which one has an event.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from research.hooks import HOOKS, Hook
from research.layers.masked import masked_weights
from research.runs.run import Run
from research.training.loop import fit
from research.training.prepare import prepare

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
OVERFLOWS = {"fp16": (2, 6), "bf16": ()}
PERIOD, END, DECAY, CLIP = 3, 9, 0.8, 0.5
RIGL = {"period": PERIOD, "end": END, "sparsity": 0.5}
SCHEDULE = {"schedule": "cosine", "warmup_epochs": 0.5, "warmup_lr": 0.01, "min_lr": 0.001}
CASES = {
    "plain": {},
    "clipping": {"clip_norm": CLIP},
    "accumulation": {"accumulation": 2},
    "schedule": SCHEDULE,
    "adamw": {"optimizer": "adamw", "lr": 1e-3},
    "gram": {"hooks": {"gram": {"warmup": 0}}},
    "masks": {"hooks": {"static_sparse": {"sparsity": 0.5}}},
    "rigl": {"hooks": {"rigl": RIGL}},
    "ema": {"hooks": {"ema": {"decay": DECAY}}},
    "together": SCHEDULE
    | {"clip_norm": CLIP, "accumulation": 2}
    | {"hooks": {"gram": {"warmup": 0}, "rigl": RIGL, "ema": {"decay": DECAY}}},
}


class Overflow(Hook):
    """Makes a gradient infinite in the 0-based steps ``at``, before it is unscaled."""

    at: tuple[int, ...] = ()

    def setup(self, run):
        def overflow(bias):
            if run.step in self.at:
                bias.grad.fill_(torch.inf)

        self.handle = run.model.fc.bias.register_post_accumulate_grad_hook(overflow)

    def close(self):
        self.handle.remove()


@pytest.fixture
def configured(tiny, plain_network, monkeypatch):
    """``configured(name, amp, case)``: the Config of a run of one epoch, 11 steps."""
    monkeypatch.setitem(HOOKS, "overflow", Overflow)

    def make(name, amp, case):
        monkeypatch.setattr(Overflow, "at", OVERFLOWS[amp])
        hooks = {"overflow": {}, **case.get("hooks", {})}
        given = {"model": plain_network, "epochs": 1, "batch_size": 128, "lr": 0.1, "channels_last": False} | case
        return tiny(**given | {"name": name, "amp": amp, "hooks": hooks})

    return make


@dataclass
class ByHand:
    """What training leaves, computed without the loop, the optimizer, the loss scale, or a method."""

    weights: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    multipliers: dict[str, torch.Tensor]
    scale: float
    average: dict[str, torch.Tensor] = field(default_factory=dict)
    momentum: dict[str, torch.Tensor] = field(default_factory=dict)
    squares: dict[str, torch.Tensor] = field(default_factory=dict)
    updates: int = 0
    late: bool = False

    def gradients(self, model, inputs, targets, parts, dtype) -> dict[str, torch.Tensor]:
        """The sum over micro-batches of the gradients of the scaled losses."""
        total = None
        for x, y in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
            own = {name: weight.clone().requires_grad_() for name, weight in self.weights.items()}
            with torch.autocast("cpu", dtype):
                loss = F.cross_entropy(functional_call(model, own, (x,)), y)
            grads = torch.autograd.grad(loss / parts * self.scale, list(own.values()))
            total = list(grads) if total is None else [a + b for a, b in zip(total, grads, strict=True)]
        return dict(zip(self.weights, total, strict=True))

    def step(self, step, grads, config, lr) -> None:
        grads = {name: grad / self.scale for name, grad in grads.items()}
        overflow = not all(grad.isfinite().all() for grad in grads.values())
        event = "rigl" in config.hooks and 0 < step <= END and (step % PERIOD == 0 or self.late)
        self.late = event and overflow
        if overflow:
            self.scale /= 2
            return
        if not event:
            grads = {name: grad * self.masks.get(name, 1.0) for name, grad in grads.items()}
        if config.clip_norm:
            norm = torch.stack([grad.norm() for grad in grads.values()]).norm()
            grads = {name: grad * min(1.0, config.clip_norm / (norm + 1e-6)) for name, grad in grads.items()}
        for name, multiplier in self.multipliers.items():
            grads[name + ".weight"] = grads[name + ".weight"] * multiplier
        self.updates += 1
        for name, grad in grads.items():
            if event and name in self.masks:
                self.rewire(name, grad, 0.3 / 2 * (1 + math.cos(math.pi * step / END)))
            else:
                getattr(self, config.optimizer)(name, grad, lr, config)
        share = 1 - DECAY if self.average else 1.0
        for name, weight in self.weights.items():
            average = self.average.get(name, weight)
            self.average[name] = (average + share * (weight - average)) * self.masks.get(name, 1.0)

    def sgd(self, name, grad, lr, config) -> None:
        weight = self.weights[name]
        grad = grad.add(weight, alpha=config.weight_decay)
        self.momentum[name] = self.momentum[name].mul(config.momentum) + grad if name in self.momentum else grad
        self.weights[name] = weight.add(self.momentum[name], alpha=-lr)

    def adamw(self, name, grad, lr, config) -> None:
        (b1, b2), weight, zero = config.betas, self.weights[name], torch.zeros_like(grad)
        self.momentum[name] = b1 * self.momentum.get(name, zero) + (1 - b1) * grad
        self.squares[name] = b2 * self.squares.get(name, zero) + (1 - b2) * grad**2
        mean, square = self.momentum[name] / (1 - b1**self.updates), self.squares[name] / (1 - b2**self.updates)
        self.weights[name] = weight * (1 - lr * config.weight_decay) - lr * mean / (square.sqrt() + config.eps)

    def rewire(self, name, grad, fraction) -> None:
        """RigL: of M active weights the k smallest go, and k others come where the gradient is largest."""
        weight, mask = self.weights[name].flatten(), self.masks[name].flatten()
        active = mask.nonzero().flatten()
        k = int(np.float32(len(active)) * np.float32(fraction))
        kept = active[weight[active].abs().argsort(stable=True)[k:]]
        others = torch.ones_like(mask).index_fill(0, kept, False).nonzero().flatten()
        # of equal gradients, which have 8 bits under bf16, the first
        grown = others[grad.flatten()[others].abs().argsort(descending=True, stable=True)[:k]]
        mask = torch.zeros_like(mask).index_fill(0, torch.cat([kept, grown]), True).view_as(grad)
        self.masks[name] = mask
        for kept in (self.weights, self.momentum):
            kept[name] = kept[name] * mask


def rate_by_hand(config, t: float) -> float:
    """The learning rate at time ``t`` in epochs."""
    if config.schedule != "cosine" or t >= config.warmup_epochs:
        floor = config.min_lr
        cosine = floor + (config.lr - floor) * (1 + math.cos(math.pi * t / config.epochs)) / 2
        return cosine if config.schedule == "cosine" else config.lr
    return config.warmup_lr + t / config.warmup_epochs * (config.lr - config.warmup_lr)


def trained_by_hand(config, multipliers) -> ByHand:
    fresh = Run.create(config)
    prepare(fresh)
    weights = {name: p.detach().clone() for name, p in fresh.model.named_parameters()}
    masks = {tensor.name: tensor.mask.clone() for tensor in masked_weights(fresh.model)}
    hand = ByHand(weights, masks, multipliers, scale=65536.0 if config.amp == "fp16" else 1.0)
    fresh.train_loader.set_epoch(0)
    for step, (inputs, targets) in enumerate(fresh.train_loader):
        grads = hand.gradients(fresh.model, inputs, targets, config.accumulation, TYPES[config.amp])
        if step in OVERFLOWS[config.amp]:
            grads["fc.bias"].fill_(torch.inf)
        hand.step(step, grads, config, rate_by_hand(config, step / fresh.steps_per_epoch))
    fresh.hooks["overflow"].close()
    return hand


@pytest.mark.parametrize(
    ("case", "amp"),
    [
        pytest.param(case, amp, marks=() if amp == "fp16" or case == "together" else pytest.mark.slow)
        for case in CASES
        for amp in TYPES
    ],
)
def test_training_is_what_its_steps_are_by_hand(case, amp, configured):
    run = fit(Run.create(configured("run", amp, CASES[case])))
    multipliers = run.hooks["gram"].multipliers if "gram" in run.hooks else {}
    hand = trained_by_hand(configured("hand", amp, CASES[case]), multipliers)

    def near(a, b):  # a wrong step is off by 1e-3
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

    assert hand.updates == run.step - len(OVERFLOWS[amp])
    assert run.scaler.get_scale() == hand.scale
    state = run.optimizer.state
    for name, parameter in run.model.named_parameters():
        near(parameter.detach(), hand.weights[name])
        near(state[parameter].get("momentum_buffer", state[parameter].get("exp_avg")), hand.momentum[name])
        if "step" in state[parameter]:
            assert state[parameter]["step"] == hand.updates
    for tensor in masked_weights(run.model):
        assert torch.equal(tensor.mask, hand.masks[tensor.name])
    if "ema" in run.hooks:
        for name, parameter in run.hooks["ema"].averaged.module.named_parameters():
            near(parameter, hand.average[name])
        assert run.hooks["ema"].averaged.n_averaged == hand.updates
