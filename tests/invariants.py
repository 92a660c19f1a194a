"""What each method and setting promises, held in every step while others act beside it: methods for tests.

``opening`` is listed before all other methods of a run and ``closing`` after them. Neither changes a bit of training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from research.hooks import Hook
from research.hooks.auxiliary import Auxiliary
from research.hooks.distill import Distill
from research.hooks.drop_path import ScheduledDropPath
from research.hooks.ema import Ema
from research.hooks.gram import Gram
from research.hooks.prune import Prune
from research.hooks.sparse import Dsr, MaskHook, Snfs
from research.hooks.tied import Tied
from research.layers.base import Substitute
from research.layers.drop_path import DropPath
from research.layers.masked import masked_weights
from research.layers.tied import bank_size
from research.measures.cost import count
from research.runs.metrics import read_rows

ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def equal(found: Tensor, expected: Tensor, what: str, rtol: float = 0.0, atol: float = 0.0) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, equal_nan=True, msg=lambda m: f"{what}: {m}")


class Opening(Hook):
    """Gradients come to the methods clipped: no method acts before that."""

    def grads(self, run):
        norm = nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None])
        limit = run.config.clip_norm
        assert not limit or not norm.isfinite() or norm <= limit * (1 + 1e-5), norm


class Closing(Hook):
    """Sees each event after all other methods, and hands it to what holds for each of them."""

    def setup(self, run):
        own = [holds(hook) for hook in run.hooks.values() for kind, holds in HELD.items() if isinstance(hook, kind)]
        self.held: list[Hook] = [*own, LogitsHold(), SizesHold(), SettingsHold()]
        for each in self.held:
            each.setup(run)

    def loss(self, run, loss):
        for each in self.held:
            each.loss(run, loss)
        return loss

    def grads(self, run):
        for each in self.held:
            each.grads(run)

    def step_end(self, run):
        for each in self.held:
            each.step_end(run)

    def epoch_end(self, run):
        for each in self.held:
            each.epoch_end(run)


class Holds(Hook):
    """What holds for one method."""

    def __init__(self, method):
        self.method = method


class GramHolds(Holds):
    """The gradient after is that before times M, on exactly the spatial convolutions, and untouched elsewhere.

    A layer that sees nothing vary has no M, and a note names it.
    """

    def setup(self, run):
        scale = self.method.grads
        spatial = {
            f"{name}.weight"
            for name, conv in run.model.named_modules()
            if isinstance(conv, nn.Conv2d) and min(conv.kernel_size) > 1 and isinstance(conv.weight, nn.Parameter)
        }

        def watched(run):
            before = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
            scale(run)
            factors = {f"{name}.weight": m for name, m in self.method.multipliers.items()}
            told = [row["text"] for row in read_rows(run.paths.metrics) if row["kind"] == "note"]
            for name in factors.keys() ^ spatial:
                assert any(f"no input channel of {name.removesuffix('.weight')} varies" in text for text in told), name
            for name, grad in before.items():
                expected = grad * factors[name] if name in factors else grad
                equal(run.model.get_parameter(name).grad, expected, f"gram, {name}")

        self.method.grads = watched


class MasksHold(Holds):
    """Weights, averages and what the optimizer keeps are 0 outside the masks, and the active units are conserved."""

    def step_end(self, run):
        tensors = masked_weights(run.model)
        for tensor in tensors:
            outside = ~tensor.broadcast.expand_as(tensor.weight)
            kept = [v for v in run.optimizer.state[tensor.weight].values() if v.shape == outside.shape]
            dense = isinstance(self.method, Snfs)  # whose momentum is kept of all weights
            for values in [tensor.weight.detach(), *([] if dense else kept)]:
                assert not values[outside].any(), tensor.name
        active = [int(tensor.mask.sum()) for tensor in tensors]
        assert active == [len(tensor.active) for tensor in self.method.tensors]
        self.conserved(run, active)

    def conserved(self, run, active: list[int]) -> None:
        first = list(self.method.counts.values())
        if isinstance(self.method, Prune):
            assert active == [ramp[sum(step <= run.step for step in self.method.plan)] for ramp in self.method.ramps]
        elif isinstance(self.method, Dsr):
            assert sum(active) == sum(first)
        elif isinstance(self.method, Snfs):
            assert abs(sum(active) - sum(first)) <= 0.1 * sum(first)
        else:
            assert active == first


class TiedHolds(Holds):
    """A tied layer has as many free values as asked for, and each of its weights is one of them."""

    def epoch_end(self, run):
        layers = [layer for layer in run.model.modules() if is_parametrized(layer)]
        assert len(layers) == len(self.method.tied) > 0
        for layer in layers:
            bank = layer.parametrizations.weight.original
            assert bank.numel() == bank_size(layer.weight.numel(), self.method.sparsity)
            assert torch.isin(layer.weight, bank).all()


class EmaHolds(Holds):
    """The average is the recursion of its definition over the weights that it sees, and as sparse as the network."""

    def setup(self, run):
        average = self.method.step_end

        def watched(run):
            updates = int(self.method.averaged.n_averaged)
            before = [p.detach().clone() for p in self.method.averaged.module.parameters()]
            average(run)
            share = 1 - self.method.decay if updates else 1.0
            share = 0.0 if run.skipped is not None and run.skipped else share
            masks = {tensor.name: tensor.broadcast for tensor in masked_weights(run.model)}
            after = self.method.averaged.module.parameters()
            for (name, p), old, new in zip(run.model.named_parameters(), before, after, strict=True):
                expected = (old + share * (p.detach() - old)) * masks.get(name, 1.0)
                equal(new.detach(), expected, f"ema, {name}", rtol=1e-5, atol=1e-7)

        self.method.step_end = watched

    def epoch_end(self, run):
        averages = dict(self.method.averaged.module.named_parameters())
        for tensor in masked_weights(run.model):
            assert not averages[tensor.name].detach()[~tensor.broadcast.expand_as(tensor.weight)].any(), tensor.name


class TeacherHolds(Holds):
    """The teacher stays as it was, in evaluation mode and without gradients."""

    def setup(self, run):
        self.kept = {name: tensor.clone() for name, tensor in self.method.network.state_dict().items()}

    def epoch_end(self, run):
        teacher = self.method.network
        assert not any(module.training for module in teacher.modules())
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
        for name, tensor in teacher.state_dict().items():
            equal(tensor, self.kept[name], f"teacher, {name}")


class AuxiliaryHolds(Holds):
    """The head is trained: every parameter of it has a gradient, but in a step that is skipped."""

    def grads(self, run):
        assert run.skipped or all(p.grad is not None and p.grad.any() for p in run.model.auxiliary_head.parameters())


class DropPathHolds(Holds):
    """Every branch has the chance that the epoch says."""

    def loss(self, run, loss):
        ends = [module for module in run.model.modules() if isinstance(module, DropPath)]
        chance = self.method.p * run.epoch / run.epochs
        assert ends and all(end.p.item() == torch.tensor(chance).item() for end in ends)


HELD = {
    Gram: GramHolds,
    MaskHook: MasksHold,
    Tied: TiedHolds,
    Ema: EmaHolds,
    Distill: TeacherHolds,
    Auxiliary: AuxiliaryHolds,
    ScheduledDropPath: DropPathHolds,
}


class LogitsHold(Hook):
    """The gradient at the logits is what PowerGrad, distillation, smoothing and mixed targets say in closed form.

    Once per micro-batch, with the loss scale and the micro-batch's share of the step.
    """

    def setup(self, run):
        self.seen: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self.teacher: Tensor | None = None
        if "distill" in run.hooks:
            ask = run.hooks["distill"].ask

            def watched(x):
                answers = ask(x)
                self.teacher = answers[""]
                return answers

            run.hooks["distill"].ask = watched

    def loss(self, run, loss):
        run.logits.retain_grad()
        self.seen.append((run.logits, run.targets, self.teacher))
        return loss

    def grads(self, run):
        assert len(self.seen) == run.config.accumulation
        scale = run.scaler.get_scale() / run.config.accumulation
        for logits, targets, teacher in self.seen:
            if logits.grad.isfinite().all():
                expected, error = scale * self.expected(run, logits, targets, teacher), ROUNDING[logits.dtype]
                equal(logits.grad.double(), expected, "logits", rtol=error, atol=error * expected.abs().max().item())
        self.seen.clear()

    def expected(self, run, logits: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
        z = logits.detach().double()
        n, classes = z.shape
        q = targets.double() if targets.is_floating_point() else F.one_hot(targets, classes).double()
        q = (1 - run.config.smoothing) * q + run.config.smoothing / classes
        alpha, labels, kd = 1.0, 1.0, 0.0  # of the softmax; shares of the labels' loss and of the teacher's logits
        for hook in run.hooks.values():
            if hook is run.hooks.get("power_grad"):
                alpha = hook.alpha_at(run.epoch, run.epochs)
            elif isinstance(hook, Distill):
                labels, kd, T = (1 - hook.alpha) * labels, (1 - hook.alpha) * kd + hook.alpha, hook.temperature
            elif isinstance(hook, Auxiliary) and hook.mode == "concat":
                labels, kd = labels / 2, kd / 2
        gradient = labels * ((alpha * z).softmax(1) - q) / n
        if kd:
            gradient += kd * 2 * T / z.numel() * ((z / T).softmax(1) - (teacher.double() / T).softmax(1))
        return gradient


class SizesHold(Hook):
    """A network has the parameters that its substitutes, ties and head were counted with before it was made."""

    def epoch_end(self, run):
        numel = sum(p.numel() for p in run.model.parameters())
        counted = count(run.model, tuple(run.train_loader.info.shape))  # which refuses another number by its rules
        assert counted.params == numel
        if run.config.substitute:
            assert any(isinstance(layer, Substitute) for layer in run.model.modules())
            tied = [layer for layer in run.model.modules() if is_parametrized(layer)]
            spared = sum(layer.weight.numel() - layer.parametrizations.weight.original.numel() for layer in tied)
            assert run.substitution.after == numel + spared


class SettingsHold(Hook):
    """Types of numbers and layout of memory are as configured."""

    def loss(self, run, loss):
        expected = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[run.config.amp]
        assert run.logits.dtype == expected and loss.dtype == torch.float32
        return loss

    def step_end(self, run):
        assert all(p.dtype == torch.float32 for p in run.model.parameters())
        layout = torch.channels_last if run.config.channels_last else torch.contiguous_format
        for name, p in run.model.named_parameters():
            kept = [v for v in run.optimizer.state[p].values() if v.shape == p.shape]
            for tensor in [p, *kept] if p.ndim == 4 else []:
                assert tensor.is_contiguous(memory_format=layout), name
