"""Distillation: train a network towards another's logits (KD) and attention maps (AT).

Hinton et al., "Distilling the Knowledge in a Neural Network" (2015); Zagoruyko and Komodakis, "Paying More Attention to
Attention" (2017); the weights and normalisations of both terms are those of the cheap-convolutions study. With student
logits y, teacher logits z (N, C), p = softmax(y / T) and q = softmax(z / T):

    KD    (1 - alpha) CE(y, labels) + 2 alpha T^2 mean over all N C entries of q (log q - log p)
    AT    CE + sum over taps of beta 3 / taps * mean over all N HW entries of (student map - teacher map)^2

``reduction="batchmean"`` is the other common KD, alpha T^2 KL(q | p) / N: larger by C / 2. Three taps are the reference
count of AT, so beta keeps its meaning with others. It does not across image sizes: rows of maps have length 1, so the
mean over HW makes AT larger for smaller maps, 16 times so for images of a quarter of the side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from research.data.datasets import describe
from research.errors import UsageError
from research.hooks.attention import attention_map, find_taps, full_precision, recorded_maps
from research.hooks.base import Hook, Reasons, Source
from research.hooks.epoch_means import EpochMeans, LogsEpochMeans
from research.hooks.teacher_cache import TeacherCache, TeacherOutputs, refuse_drawn
from research.measures.evaluate import evaluate
from research.models.libraries import PUBLISHED
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.config import Config
    from research.runs.run import Run

__all__ = ["Distill", "attention_map", "attention_transfer_loss", "attention_transfer_terms", "divergence", "kd_loss"]

Reduction = Literal["elementwise", "batchmean"]


def kd_loss(
    y: Tensor,
    teacher_y: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    alpha: float = 0.9,
    reduction: Reduction = "elementwise",
) -> Tensor:
    """Cross-entropy of ``labels`` (N,) and divergence from ``teacher_y``, weighted 1 - alpha to alpha; a scalar.

    ``y`` and ``teacher_y`` are logits (N, C) of any floating dtype; half precision is computed in float32. No gradient
    reaches the teacher.
    """
    return (1 - alpha) * F.cross_entropy(y, labels) + alpha * divergence(y, teacher_y, temperature, reduction)


def divergence(y: Tensor, teacher_y: Tensor, temperature: float, reduction: Reduction = "elementwise") -> Tensor:
    """What alpha multiplies in :func:`kd_loss`: 2 T^2 mean(q (log q - log p)), or T^2 KL(q | p) / N by ``batchmean``.

    T^2 keeps the size of the gradients at the logits when T changes.
    """
    log_p, log_q = ((full_precision(logits) / temperature).log_softmax(1) for logits in (y, teacher_y.detach()))
    kl = F.kl_div(log_p, log_q, reduction="sum", log_target=True)
    return temperature**2 * kl * (2 / y.numel() if reduction == "elementwise" else 1 / len(y))


def attention_transfer_terms(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """The mean squared difference of the maps (N, HW) at every tap: (taps,)."""
    pairs = zip(student_maps, teacher_maps, strict=True)
    return torch.stack([F.mse_loss(student, teacher.detach()) for student, teacher in pairs])


def attention_transfer_loss(
    student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor], beta: float = 1e3
) -> Tensor:
    """The sum over taps of beta 3 / taps * mean squared difference of the maps of :func:`attention_map`; a scalar."""
    return beta * 3 / len(student_maps) * attention_transfer_terms(student_maps, teacher_maps).sum()


class Distill(LogsEpochMeans):
    """Train towards a teacher's attention maps and logits: the loss becomes (1 - alpha) loss + alpha KD + AT.

    The teacher is in evaluation mode and no part of the run's network. A run's network is rebuilt as its own methods
    changed it, a teacher of its own excepted, with its best weights; ``torchvision:NAME`` and ``timm:NAME`` are fetched
    with their newest published ones. Without ``teacher`` it is the run's own network with its initial weights:
    untrained, to try things out. Its files must stay as they are while the run trains. Its top-1 on the run's
    validation set is measured first (a row ``val_teacher``); rows ``distill`` have the means of both terms over every
    epoch, and those of each tap.

    ``taps`` are names of modules, in teacher and student alike. Without them maps are compared at the ends of the
    stages: ``groupN`` and ``layerN`` of ResNets (each cut into ``split`` equal parts), the cells before the reductions
    of DARTS, the strided blocks of MobileNetV2; the two networks may then be of different kinds. List it after methods
    that add terms to the loss of the labels.

    With ``cache`` the teacher answers to every training image once, whenever training starts or continues, and its
    logits and maps are looked up afterwards. Refused where augmentation makes an image another every epoch.
    """

    neutral = {"alpha": 0.0, "beta": 0.0}
    row = "distill"

    def __init__(
        self,
        teacher: Annotated[str, "a run, a file of weights, torchvision:NAME or timm:NAME; empty = initial self"] = "",
        teacher_model: Annotated[str, "network of a file that does not name its own; empty = the student's"] = "",
        teacher_mean: Annotated[tuple[float, ...], "per channel, that its inputs had; empty = as is known of it"] = (),
        teacher_std: Annotated[tuple[float, ...], "per channel, likewise; a file of another origin knows neither"] = (),
        alpha: Annotated[float, Range(least=0, most=1), "weight of the teacher's logits against the labels'"] = 0.0,
        temperature: Annotated[float, Range(above=0), "of both softmaxes in KD"] = 4.0,
        beta: Annotated[float, Range(least=0), "weight of attention transfer, for three taps"] = 1e3,
        taps: Annotated[tuple[str, ...], "modules whose maps are compared; empty = ends of the stages"] = (),
        split: Annotated[int, Range(least=1), "parts of a stage, each with a tap at its end"] = 1,
        reduction: Annotated[Reduction, "of KD: mean over classes too, or sum"] = "elementwise",
        cache: Annotated[bool, "ask the teacher about every training image only once; not with augmentation"] = False,
    ):
        if taps and split > 1:
            raise UsageError(f"split={split}: cuts the known stages, and taps={list(taps)} names others; give one")
        if len(teacher_mean) != len(teacher_std):
            raise UsageError(
                f"teacher_mean={list(teacher_mean)}, teacher_std={list(teacher_std)}: give both, a number a channel"
            )
        if min(teacher_std, default=1.0) <= 0:
            raise UsageError(f"teacher_std={list(teacher_std)}: must be > 0")
        self.teacher, self.teacher_model, self.taps, self.split = teacher, teacher_model, taps, split
        self.teacher_mean, self.teacher_std = teacher_mean, teacher_std
        self.alpha, self.temperature, self.beta, self.reduction = alpha, temperature, beta, reduction
        self.cache = cache

    @property
    def active(self) -> bool:
        return bool(self.alpha or self.beta)

    def idle(self) -> Reasons:
        if not self.active:
            others = ("teacher_model", "teacher_mean", "teacher_std", "temperature", "taps", "split", "reduction")
            return dict.fromkeys(("teacher", "cache", *others), "there is no teacher, with alpha=0 and beta=0")
        reasons = {}
        if not self.alpha:
            reasons |= dict.fromkeys(("temperature", "reduction"), "the teacher's logits have no weight; give alpha")
        if not self.beta:
            reasons |= dict.fromkeys(("taps", "split"), "attention maps have no weight; give beta")
        if not self.teacher:
            reasons["teacher_model"] = "there is no teacher whose network it could name; give teacher"
            own = "the teacher is the run's own network, whose inputs are the run's; give teacher"
            reasons |= dict.fromkeys(("teacher_mean", "teacher_std"), own)
        elif self.teacher.partition(":")[0] in PUBLISHED:
            reasons["teacher_model"] = f"teacher={self.teacher} names its network itself"
        return reasons

    def out_of_order(self, later: Mapping[str, Hook]) -> str:
        if self.alpha and "auxiliary" in later:
            return "the loss of auxiliary, listed after it, is not weighed by 1 - alpha"
        return ""

    def check_network(self, run: Run) -> None:
        if self.beta:
            find_taps(run.model, self.taps, self.split)

    def check(self, config: Config) -> None:
        if self.active and self.cache:
            refuse_drawn(config)
        channels = len(describe(config.dataset).mean)
        if self.active and self.teacher_mean and len(self.teacher_mean) != channels:
            raise UsageError(
                f"distill.teacher_mean={list(self.teacher_mean)}: expected {channels} numbers, one a channel of "
                f"{config.dataset}"
            )

    def sources(self, config: Config) -> dict[str, Source]:
        if not self.active:
            return {}
        given = {"model": self.teacher_model} if self.teacher_model else {}
        known = (self.teacher_mean, self.teacher_std) if self.teacher_mean else None
        return {"teacher": Source(self.teacher, wants="network", given=given, normalisation=known)}

    def setup(self, run: Run) -> None:
        if not self.active:
            return
        teacher = run.sources[self]["teacher"]
        self.network, self.origin = teacher.network, teacher.origin
        self.network.requires_grad_(False).eval()
        self.maps, self.teacher_maps = (
            recorded_maps(network, find_taps(network, self.taps, self.split) if self.beta else [])
            for network in (run.model, self.network)
        )
        self.check_fit(run)
        self.means = EpochMeans(["kd", "at", *(f"at.{tap}" for tap in self.maps)], run.device)
        if run.config.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.forward = torch.compile(self.network) if run.config.compile else self.network
        self.kept = TeacherCache(run, self.ask) if self.cache else None

    @torch.no_grad()
    def check_fit(self, run: Run) -> None:
        """Send one input of zeros through both networks: their logits and maps must be of the same sizes.

        Raises:
            UsageError: they are not.
        """
        was_training = run.model.training
        x = torch.zeros(1, *run.train_loader.info.shape, device=run.device)
        y, teacher_y = run.model.eval()(x), self.network(x)
        run.model.train(was_training)
        if y.shape != teacher_y.shape:
            raise UsageError(f"distill: the teacher gives {teacher_y.shape[1]} logits, the model {y.shape[1]}")
        if len(self.maps) != len(self.teacher_maps):
            raise UsageError(
                f"distill: the model has taps {', '.join(self.maps)}, the teacher {', '.join(self.teacher_maps)}; "
                "their numbers must be equal"
            )
        for (tap, own), (teacher_tap, other) in zip(self.maps.items(), self.teacher_maps.items(), strict=True):
            for role, name, seen in (("model", tap, own), ("teacher", teacher_tap, other)):
                if seen is None:
                    raise UsageError(f"distill: no input reaches tap {name!r} of the {role}; give others")
            if own.shape != other.shape:
                raise UsageError(
                    f"distill: maps differ in size: {own.shape[1]} pixels at {tap} of the model, {other.shape[1]} at "
                    f"{teacher_tap} of the teacher; give distill.taps=[…] of equal size"
                )

    def epoch_start(self, run: Run) -> None:
        if self.active and run.epoch == 0:
            result = evaluate(run, self.network)
            run.log("val_teacher", **result)
            run.note(f"distill: the teacher is {self.origin}; its top-1 here is {result['top1']:.2f} %")

    @torch.no_grad()
    def ask(self, x: Tensor) -> TeacherOutputs:
        """The teacher's outputs for inputs ``x`` (B, C, H, W), as far as the loss needs them."""
        logits = self.forward(x)
        return self.teacher_maps | ({"": logits} if self.alpha else {})

    def loss(self, run: Run, loss: Tensor) -> Tensor:
        if not self.active:
            return loss
        answers = self.kept(run) if self.kept else self.ask(run.inputs)
        kd = at = loss.new_zeros(())
        terms = loss.new_zeros(len(self.maps))
        if self.alpha:
            kd = divergence(run.logits, answers[""], self.temperature, self.reduction)
            loss = (1 - self.alpha) * loss + self.alpha * kd
        if self.beta:
            teacher_maps = [answers[tap] for tap in self.teacher_maps]
            terms = attention_transfer_terms(list(self.maps.values()), teacher_maps)
            at = self.beta * 3 / len(terms) * terms.sum()
            loss = loss + at
        self.means.add(torch.cat([torch.stack([kd, at]), terms]), len(run.inputs))
        return loss
