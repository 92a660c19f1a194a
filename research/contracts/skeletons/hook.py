"""my_method: gradient centralisation (Yong et al., ECCV 2020, arXiv 2004.01461), to be changed into a method of yours.

research train plugin=my_method.py my_method=true epochs=2
research check my_method.py
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from research.hooks import Hook
from research.parameters.signatures import Range


def centralised(gradient: Tensor, share: float = 1.0) -> Tensor:
    """``gradient`` (out, …) minus ``share`` of the mean over each unit's inputs; vectors as they are."""
    if gradient.ndim < 2:
        return gradient
    return gradient - share * gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)


class MyMethod(Hook):
    """Takes from the gradient of every unit its mean over the unit's inputs."""

    neutral = {"share": 0.0}  # with these parameters training is plain training, bit for bit
    exercise = {"share": 1.0}  # and with these something happens within a dozen steps

    def __init__(self, share: Annotated[float, Range(least=0, most=1), "of the mean that is taken away"] = 1.0):
        self.share = share
        self.steps = 0  # all state is in state_dict

    def grads(self, run):
        """After clipping, before the optimizer; research.hooks.Hook lists the other events."""
        self.steps += 1
        if self.share:
            for parameter in run.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.copy_(centralised(parameter.grad, self.share))

    def epoch_end(self, run):
        run.log("my_method", steps=self.steps)  # a row of metrics.jsonl

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


HOOKS = {"my_method": MyMethod}
