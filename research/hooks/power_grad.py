"""PowerGrad: cross-entropy whose gradient is that of a flattened or sharpened softmax (arXiv 2111.12495).

With logits z (N, C), p = softmax(z) and target distribution q, cross-entropy has the gradient (p - q) / N. PowerGrad
keeps the value and replaces p in the gradient by p^alpha, normalised: T_alpha(p) = softmax(alpha z). Hence

    dL/dz = (softmax(alpha z) - q) / N,

which is the exact gradient of CE(alpha z, q) / alpha: a temperature of 1 / alpha, times that temperature. What to
expect of alpha < 1: logits grow about 1 / alpha as large, the arg-max is unaffected, and the loss of the raw logits is
over-confident; ``loss_scaled`` of the rows ``power_grad``, the loss of alpha z, is the one to compare between alphas.

The published code does something else unless AMP's loss scale S happens to be N^2 (65536 for its 256 images a process).
It works in a hook on the logits, reads S (p - q) / N as if it were (p - q) N, and so transforms q + k (p - q) with
k = S / N^2. With k < 1 gradients are too large: 55,000 times at S = 1, which is why the code needs ``--amp``. With
k > 1 a negative number is raised to a fractional power: NaN in every row with p_y < 1 - 1/k, and AMP halves S until
that ends. Here the gradient is linear in whatever multiplies the loss, so it is right with AMP and without, with any
batch, accumulation and number of processes. :func:`legacy_gradient` is what the published code computes, for plots.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from research.distributed import all_reduce
from research.errors import UsageError
from research.hooks.base import Hook, Reasons
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.runs.run import Run

HALF = (torch.float16, torch.bfloat16)


def power_grad_cross_entropy(
    logits: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    smoothing: float = 0.0,
    reduction: str = "mean",
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    """Cross-entropy with the gradient (softmax(alpha logits) - q) / N; ``alpha=1`` is ``F.cross_entropy`` itself.

    Args:
        logits: (N, C) or (N, C, ...) of any floating dtype; half precision is computed and (alpha != 1) returned in
            float32, and its gradient is rounded once, at the end.
        target: classes, int64 (N, ...), or distributions shaped like ``logits``. A row of mass m = sum q has the
            gradient m softmax(alpha z) - q. Where q = 0, a logit may be -inf.
        alpha: > 0; below 1 flattens, above 1 sharpens the softmax of the gradient.
        smoothing, reduction, weight, ignore_index: as those of ``F.cross_entropy``; the mean over no row at all is
            nan there too, with gradient 0.

    Raises:
        UsageError: alpha is not a finite number above 0.
    """
    if not 0 < alpha < math.inf:
        raise UsageError(f"alpha={alpha}: expected a finite number above 0 (1 is plain cross-entropy)")

    options = {"reduction": reduction, "label_smoothing": smoothing}
    if alpha == 1:
        return F.cross_entropy(logits, target, weight, ignore_index=ignore_index, **options)
    z = logits.float() if logits.dtype in HALF else logits  # autocast leaves float32 alone in all that follows
    if weight is None and reduction == "mean" and _is_plain(z, target):
        return _PowerGrad.apply(z, target, alpha, smoothing, ignore_index)
    weight = None if weight is None else weight.to(z.dtype)
    if target.is_floating_point():
        cross_entropy = partial(_soft_cross_entropy, q=target, weight=weight, **options)
    else:
        cross_entropy = partial(F.cross_entropy, target=target, weight=weight, ignore_index=ignore_index, **options)
    # the maximum goes before multiplying, so that an offset common to a row costs no digits and nothing overflows
    scaled = (z - z.detach().amax(_class_axis(z), keepdim=True)).mul_(alpha)
    return _ValueOf.apply(cross_entropy(z.detach()), cross_entropy(scaled) / alpha)


def _is_plain(z: Tensor, target: Tensor) -> bool:
    """Whether this is the loss of nearly every step: rows of logits and classes, outside of any transform."""
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return z.ndim == 2 and target.ndim == 1 and not target.is_floating_point() and not transformed


class _PowerGrad(torch.autograd.Function):
    """Mean cross-entropy of classes, whose gradient is made where backward asks for it: half the passes over (N, C)."""

    @staticmethod
    def forward(ctx, z: Tensor, target: Tensor, alpha: float, smoothing: float, ignore_index: int) -> Tensor:
        log_p = torch.log_softmax(z, 1)
        ctx.save_for_backward(z, log_p, target)
        ctx.alpha, ctx.smoothing, ctx.ignore_index = alpha, smoothing, ignore_index
        loss = F.nll_loss(log_p, target, ignore_index=ignore_index)
        if smoothing:  # in the order in which F.cross_entropy computes it
            kept = target != ignore_index
            spread = -log_p.sum(1).masked_fill_(~kept, 0.0).sum() / kept.sum()
            loss = spread * (smoothing / z.shape[1]) + loss * (1 - smoothing)
        return loss

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, log_p, target = ctx.saved_tensors
        if not torch.is_grad_enabled() and (compiled := _compiled(log_p, ctx.alpha)):
            out = torch.empty_like(log_p)
            numbers = (np.float32(number) for number in (gradient.item(), ctx.alpha, ctx.smoothing))
            compiled(log_p.numpy(), target.numpy(), ctx.ignore_index, *numbers, out.numpy())
            return out, None, None, None, None
        kept = target != ctx.ignore_index
        scale = (gradient * kept / kept.sum().clamp(min=1))[:, None]
        label = target.clamp(min=0)[:, None]
        share = scale * (ctx.smoothing - 1)  # of the label, beside the share of every class
        if torch.is_grad_enabled():  # for a second derivative
            p = torch.softmax(ctx.alpha * (z - z.detach().amax(1, keepdim=True)), 1)
            return ((p - ctx.smoothing / z.shape[1]) * scale).scatter_add(1, label, share), None, None, None, None
        p = torch.softmax(log_p * ctx.alpha, 1)
        if ctx.smoothing:
            p.sub_(ctx.smoothing / z.shape[1])
        return p.mul_(scale).scatter_add_(1, label, share), None, None, None, None


def _compiled(log_p: Tensor, alpha: float) -> Callable[..., None] | None:
    """The compiled gradient of ``log_p`` (N, C), if there is one for it."""
    fits = log_p.device.type == "cpu" and log_p.dtype == torch.float32
    return _kernel() if fits and alpha * math.log(log_p.shape[1]) < 80 else None


@cache
def _kernel() -> Callable[..., None] | None:
    try:
        from research.hooks.power_grad_compiled import gradient  # numba may be missing, and takes a second
    except ImportError:
        return None
    return gradient


class _ValueOf(torch.autograd.Function):
    """The value of the first loss with the gradient of the second."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, surrogate: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


def _soft_cross_entropy(z: Tensor, q: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float) -> Tensor:
    """``F.cross_entropy`` of distributions ``q``, where a logit of -inf with q = 0 adds 0 instead of nan."""
    axis = _class_axis(z)
    q = q.to(z.dtype)
    if label_smoothing:
        q = (1 - label_smoothing) * q + label_smoothing / z.shape[axis]
    if weight is not None:
        q = q * weight.reshape(-1, *[1] * (z.ndim - axis - 1))
    losses = -(q * z.log_softmax(axis).masked_fill(q == 0, 0)).sum(axis)
    return losses if reduction == "none" else getattr(losses, reduction)()


def _class_axis(z: Tensor) -> int:
    return min(1, z.ndim - 1)


def legacy_gradient(
    logits: Tensor, labels: Tensor, alpha: float, smoothing: float = 0.0, loss_scale: float = 1.0
) -> Tensor:
    """The gradient that the published code applies for logits (N, C) and labels (N,) under AMP's ``loss_scale`` S.

    (T_alpha(q + k (p - q)) - q) / (k N) with k = S / N^2, in float64; nan in rows with a negative entry of
    q + k (p - q). Equal to PowerGrad's where k = 1. For comparisons only.
    """
    count, classes = logits.shape
    k = loss_scale / count**2
    q = (1 - smoothing) * F.one_hot(labels, classes).double() + smoothing / classes
    powers = (q + k * (logits.double().softmax(1) - q)) ** alpha
    return (powers / powers.sum(1, keepdim=True) - q) / (k * count)


class PowerGrad(Hook):
    """Train on cross-entropy whose softmax is taken of alpha times the logits in the gradient, not in the value.

    It replaces the criterion and keeps the run's label smoothing; terms that other methods add to the loss are left as
    they are. Evaluation is that of plain training; rows ``power_grad`` add the validation loss of alpha z.
    """

    neutral = {"alpha": 1.0}
    exclusive = "criterion"  # of two methods that replace it, one would do nothing

    def __init__(
        self,
        alpha: Annotated[
            float, Range(above=0), "power of the softmax; below 1 flattens it, 1 is plain training"
        ] = 0.25,
        final_alpha: Annotated[float, Range(least=0), "alpha of the last epoch, approached linearly; 0 = alpha"] = 0.0,
    ):
        self.alpha, self.final_alpha = alpha, final_alpha

    def alpha_at(self, epoch: int, epochs: int) -> float:
        """The power in force in ``epoch`` of ``epochs``."""
        share = epoch / max(1, epochs - 1) if self.final_alpha else 0.0
        return self.alpha + share * (self.final_alpha - self.alpha)

    def idle(self) -> Reasons:
        return {"final_alpha": "it is alpha itself"} if self.final_alpha == self.alpha else {}

    def idle_in(self, run: Run) -> Reasons:
        return {"final_alpha": "the run has one epoch"} if run.epochs == 1 else {}

    def setup(self, run: Run) -> None:
        def criterion(logits: Tensor, targets: Tensor) -> Tensor:
            alpha = self.alpha_at(run.epoch, run.epochs)
            return power_grad_cross_entropy(logits, targets, alpha, run.config.smoothing)

        run.criterion = criterion
        self._scaled = torch.zeros(2, dtype=torch.float64, device=run.device)  # loss of alpha z, images

    def evaluated(self, run: Run, logits: Tensor, targets: Tensor) -> None:
        alpha = self.alpha_at(run.epoch, run.epochs)
        self._scaled[0] += F.cross_entropy(alpha * logits.float(), targets, reduction="sum")
        self._scaled[1] += len(targets)

    def epoch_end(self, run: Run) -> None:
        loss, images = all_reduce(self._scaled).tolist()
        run.log("power_grad", alpha=self.alpha_at(run.epoch, run.epochs), loss_scaled=loss / images)
        self._scaled.zero_()
