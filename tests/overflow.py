"""Methods for tests that multiply losses, let a gradient overflow, and watch what a step moves."""

import torch

from research.hooks import Hook

SKIPPED = 3  # in which most methods have an event


class Scaled(Hook):
    """Multiplies losses by 64, and divides gradients by as much: exact in binary numbers."""

    def epoch_start(self, run):
        run.scaler = torch.amp.GradScaler(run.device.type, init_scale=64.0)


class Overflow(Scaled):
    """Makes a gradient of the 0-based step ``SKIPPED`` infinite, and no other: the scale is small."""

    def setup(self, run):
        def overflow(bias):
            if run.step == SKIPPED:
                bias.grad.fill_(torch.inf)

        self.handle = run.model.fc.bias.register_post_accumulate_grad_hook(overflow)

    def close(self):
        self.handle.remove()


class Watch(Hook):
    """What training has moved after each step; to be listed last."""

    def setup(self, run):
        self.moved = []

    def step_end(self, run):
        state = {f"weight {name}": p.detach() for name, p in run.model.named_parameters()}
        for name, p in run.model.named_parameters():
            state |= {f"{key} of {name}": value for key, value in run.optimizer.state.get(p, {}).items()}
        if "ema" in run.hooks:
            state |= {f"average {name}": value for name, value in run.hooks["ema"].averaged.state_dict().items()}
        self.moved.append({name: value.clone() for name, value in state.items() if value is not None})
