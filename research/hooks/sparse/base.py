"""What all methods that train with masks share: which weights are sparse, and what keeps them so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from research.checkpoints.bits import to_bits, unpacked
from research.devices import fetch
from research.errors import UsageError
from research.hooks.base import Hook, Reasons, Source
from research.hooks.sparse.criteria import grow_random
from research.hooks.sparse.distributions import count_of, erk_density, uniform_count
from research.hooks.sparse.events import Event, event_due
from research.hooks.sparse.first_masks import Shuffle, copy_masks, copy_parameters, random_mask
from research.layers.masked import (
    Choice,
    Masked,
    Site,
    active_weights,
    attach_mask,
    choose,
    is_shortcut,
    mask_shape,
    masked_weights,
    masks_among,
)
from research.measures.paths import living
from research.parameters.piecewise import Piecewise
from research.parameters.signatures import Range, parameters_of
from research.parameters.when import When, every, in_steps, is_when

if TYPE_CHECKING:
    from research.config import Config
    from research.runs.run import Run

HISTORY = LAST, INITIAL, EVER = 1, 2, 4  # bits of the history of a unit
CONNECTED = "inputs", "outputs", "living"  # units of a tensor in a row `sparse`


@dataclass(eq=False)
class MaskHook(Hook):
    """A method that decides masks. Subclasses say the first masks and change them; the rest is kept here.

    Weights are exactly 0 outside the masks from the start on, and so are their gradients, before they are averaged over
    ranks or clipped; hence the optimizer's state and every update are. Masks are part of the model's state.

    A step whose update is skipped (``run.skipped``) is none for an event: it would rank gradients that are not finite,
    or kill again what has not moved since it grew. It is put off to the next step that is not skipped.
    """

    exclusive = "masks"
    draws = True
    neutral = {"sparsity": 0.0}

    granularity: Annotated[
        int, Range(least=1, most=4), "what a mask decides on in a kernel: 4 weights, 3 rows, 2 slices, 1 output filters"
    ] = 4
    only: Annotated[str, "patterns of layer names, separated by blanks: exactly these are sparse"] = ""
    keep: Annotated[str, "patterns of layer names that stay dense"] = ""
    sparse_downsample: Annotated[bool, "convolutions of shortcuts are sparse too"] = False
    l1: Annotated[float, Range(least=0), "coefficient of the sum of abs(w) of sparse weights in the loss"] = 0.0
    group_lasso: Annotated[bool, "in kernels, l1 takes the norm of each (kh, kw) slice instead"] = False
    momentum: Annotated[
        Literal["reset", "legacy"], "optimizer state of a killed unit: set to 0, or kept as in the published code"
    ] = "reset"

    moves: ClassVar[bool] = True
    """Whether masks are meant to change in training."""

    _slopes: ClassVar[Sequence[Tensor]] = ()  # of l1, at the active weights, in the backward pass that is under way

    def __post_init__(self) -> None:
        self._moved = 0  # units killed and grown since training began
        self._late = False  # an event has been put off
        self._handles: list[RemovableHandle] = []
        self.counts: dict[str, int] = {}

    # -- for subclasses -----------------------------------------------------------------------------------------

    @property
    def dense(self) -> bool:
        """Whether the method is switched off: nothing is to be 0."""
        raise NotImplementedError

    def initial_counts(self, sites: Mapping[str, Site]) -> dict[str, int]:
        """Active units of each layer at the start; empty when the method is off and no mask is wanted."""
        raise NotImplementedError

    def wants_dense_gradient(self, run: Run) -> bool:
        """Whether ``grads`` sees the gradient of all weights in this step, active or not; it is masked right after."""
        return False

    def grow(self, run: Run) -> Callable[[Masked, int], Tensor]:
        """Growth at random: (tensor, count) -> inactive units, from the run's own stream for that step."""
        return partial(grow_random, generator=run.generator("grow"))

    def put_off(self, run: Run, step: int) -> bool:
        """Whether the event that is due in 0-based ``step`` has to wait for the next one; it is noted, and remembered.

        Waits for the device, but only under amp=fp16.
        """
        self._late = bool(run.skipped)
        if self._late:
            run.note(f"gradients overflow in step {step}, which is skipped; the event due in it comes in the next one")
        return self._late

    def changed(self, run: Run, event: Event) -> None:
        """To be called after masks have changed: what the optimizer and the history know of the units."""
        self._moved += event.pruned_count + event.grown_count
        for tensor, history, killed, grown in zip(
            self.tensors, self.history.values(), event.killed, event.grown, strict=True
        ):
            history.numpy()[grown.numpy()] |= EVER
            if len(killed) and self.momentum == "reset":
                forget(run.optimizer, tensor, killed)

    def log_event(self, run: Run, pruned: int, grown: int, **values: Any) -> None:
        """A row ``sparse_event``: units of the whole network that died and grew, and the share that is active now."""
        active, units = sum(len(tensor.active) for tensor in self.tensors), sum(tensor.units for tensor in self.tensors)
        run.log("sparse_event", pruned=pruned, grown=grown, density=active / units, **values)

    @cached_property
    def tensors(self) -> list[Masked]:
        """The sparse tensors, in order of registration; not to be used before training starts."""
        tensors = masked_weights(self._model)
        for tensor, flags in zip(tensors, fetch([tensor.flat(tensor.mask) for tensor in tensors]), strict=True):
            tensor.flags = flags
        return tensors

    @cached_property
    def history(self) -> dict[str, Tensor]:
        """Bits of every unit, uint8 (N,) by tensor name, on the host: active at first, after the last epoch, ever."""
        return {tensor.name: tensor.flags.byte() * (LAST | INITIAL | EVER) for tensor in self.tensors}

    # -- the contract -------------------------------------------------------------------------------------------

    def idle(self) -> Reasons:
        if self.dense:
            kept = ("sparsity", "sparsity_fc", "sparsity_conv")
            return {p: "nothing is sparse, with sparsity=0" for p in parameters_of(type(self)) if p not in kept}
        reasons = {} if self.l1 else {"group_lasso": "it says what l1 sums up; give l1"}
        if self.only:
            reasons["sparse_downsample"] = "only= says which layers are sparse"
        if not self.moves:
            reasons["momentum"] = "no unit is ever killed"
        return reasons

    def idle_in(self, run: Run) -> Reasons:
        if not self.counts:
            return {}
        sites = [self.choice.sparse[name] for name in self.counts]
        reasons = idle_sparsities(self.choice)
        if all(site.weight.ndim != 4 for site in sites):
            reasons["granularity"] = "no kernel is sparse here, and elsewhere a unit is one weight"
            reasons["group_lasso"] = "no kernel is sparse here"
        if run.config.optimizer == "sgd" and not run.config.momentum:
            reasons["momentum"] = "the optimizer has none"
        return reasons

    def out_of_order(self, later: Mapping[str, Hook]) -> str:
        weighed = self.l1 and "distill" in later and later["distill"].alpha
        return "distill, listed after it, weighs its l1 by 1 - alpha" if weighed else ""

    def undone(self, run: Run) -> str:
        stood_still = self.moves and self.counts and not self._moved
        return "its masks have never changed, so they were static" if stood_still else ""

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def build(self, run: Run) -> None:
        self.choice: Choice = choose(run.model, self.only, self.keep, self.sparse_downsample)
        self.counts = self.initial_counts(self.choice.sparse)
        for name, count in self.counts.items():
            site = self.choice.sparse[name]
            mask = random_mask(mask_shape(site.weight, self.granularity), count, run.generator("initial mask", name))
            attach_mask(site.owner, mask, site.parameter)

    def setup(self, run: Run) -> None:
        self._model = run.model
        ignored = getattr(run.model, "_ddp_params_and_buffers_to_ignore", [])
        # equal on all ranks already: DDP would send them with every forward pass
        run.model._ddp_params_and_buffers_to_ignore = [*ignored, *masks_among(run.model.state_dict())]
        for index, tensor in enumerate(masked_weights(run.model)):
            # after accumulation the gradient is the weight's own, to be masked in place, and DDP has not sent it yet
            handle = tensor.weight.register_post_accumulate_grad_hook(partial(self._mask_gradient, run, index))
            self._handles.append(handle)  # a circle through C++, in which the run would stay alive

    def _mask_gradient(self, run: Run, index: int, weight: Tensor) -> None:
        tensor, slope = self.tensors[index], self._slopes[index] if self._slopes else None
        if not self.wants_dense_gradient(run):
            tensor.restrict(weight.grad, slope)
        elif slope is not None:
            tensor.add(weight.grad, slope)

    def epoch_start(self, run: Run) -> None:
        _ = self.history  # starts with the masks that training starts with, so before the first event
        if run.step == 0 and self.tensors:
            run.note(self.choice.describe(self.counts))
        for tensor in self.tensors if run.step == 0 else ():
            if len(tensor.active) == 0:
                run.note(f"no weight of {tensor.name} is active: {tensor.units} units are too few for this sparsity")

    def loss(self, run: Run, loss: Tensor) -> Tensor:
        if not (self.l1 and self.tensors):
            return loss
        if self.group_lasso or self.granularity < 4:
            return loss + self.l1 * regularizer(self.tensors, self.group_lasso)
        # the gradient l1 sign(w) joins that of the weights where it is masked, which backward reaches later: autograd
        # would compute it for every weight, active or not, at a quarter of the time of a small network's step
        active = active_weights(self.tensors)
        loss = torch.add(loss, active.abs().sum(), alpha=self.l1)

        def slope(grad: Tensor) -> None:  # with the loss scale, and the share of a micro-batch
            self._slopes = active.sign_().mul_(self.l1 * grad).split([len(tensor.active) for tensor in self.tensors])

        loss.register_hook(slope)
        return loss

    def grads(self, run: Run) -> None:
        if self.wants_dense_gradient(run):
            for tensor in self.tensors:
                tensor.restrict(tensor.weight.grad)

    def step_end(self, run: Run) -> None:
        if self.momentum == "legacy":  # what is left of a killed unit's momentum still moves its weight
            for tensor in self.tensors:
                tensor.apply()

    def epoch_end(self, run: Run) -> None:
        if not self.tensors:
            return
        counts = []
        for tensor, history in zip(self.tensors, self.history.values(), strict=True):
            mask = tensor.flags
            had = torch.stack([history & bit > 0 for bit in HISTORY])
            counts.append(torch.cat([had[:2].sum(1), (had[:2] & mask).sum(1), had[2:].sum(1), mask.sum()[None]]))
            history.bitwise_and_(~LAST & 0xFF).bitwise_or_(mask.byte() * LAST)
        told = torch.cat([torch.stack(counts), self.connected()], 1).tolist()  # the one wait for a GPU
        for tensor, (before, first, kept, survived, ever, active, *units) in zip(self.tensors, told, strict=True):
            run.log(
                "sparse",
                layer=tensor.name,
                active=active,
                density=active / tensor.units,
                coverage=ever / tensor.units,
                kept=kept / before if before else None,
                survived=survived / first if first else None,
                **{name: None if n < 0 else n for name, n in zip(CONNECTED, units, strict=True)},
            )

    def connected(self) -> Tensor:
        """Of each tensor, ``CONNECTED``: int64 (tensors, 3).

        Inputs and outputs (units, or channels) with any active weight, and how many of the outputs are living
        (:func:`~research.measures.paths.living`); -1 is what there is not: of vectors, and living ones where not all is
        a chain of matrices.
        """
        masks = [tensor.shaped(tensor.flags) for tensor in self.tensors]
        chain = not self.choice.dense and all(mask.ndim == 2 for mask in masks)
        chain = chain and all(len(mask) == after.shape[1] for mask, after in pairwise(masks))
        none = masks[0].new_tensor(-1, dtype=torch.int64)
        alive = [units.sum() for units in living(masks)] if chain else [none] * len(masks)
        flat = [mask.flatten(2).any(2) if mask.ndim > 2 else mask for mask in masks]
        used = [(mask.any(0).sum(), mask.any(1).sum()) if mask.ndim > 1 else (none, none) for mask in flat]
        return torch.stack([torch.stack([*both, units]) for both, units in zip(used, alive, strict=True)])

    def state_dict(self) -> dict[str, Any]:
        history = {name: [to_bits(units, bit) for bit in HISTORY] for name, units in self.history.items()}
        return {"history": history, "moved": self._moved, "late": self._late}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = {name: read_history(units) for name, units in unpacked(state["history"]).items()}
        self._moved, self._late = state.get("moved", 0), state.get("late", False)  # newer than the first checkpoints


def read_history(stored: Tensor | list[Tensor]) -> Tensor:
    """A tensor's history, uint8 (N,), from a checkpoint: bool (N,) for each bit, or in older ones the bits (N,)."""
    if isinstance(stored, Tensor):
        return stored.cpu().byte()
    last, initial, ever = (flags.cpu().byte() for flags in stored)
    return last * LAST | initial * INITIAL | ever * EVER


@dataclass(eq=False)
class SparseHook(MaskHook):
    """A network that is sparse from the start: how sparse, and where its first masks come from."""

    sparsity: Annotated[float, Range(least=0, below=1), "share of the units that are 0; 0 = dense, without masks"] = 0.9
    sparsity_fc: Annotated[float | None, Range(least=0, below=1), "that of matrices; none = sparsity"] = None
    sparsity_conv: Annotated[float | None, Range(least=0, below=1), "that of kernels; none = sparsity"] = None
    distribution: Annotated[
        Literal["uniform", "er", "erk"], "of the sparsity over layers: equal, or Erdos-Renyi (with the kernel's size)"
    ] = "uniform"
    er_power: Annotated[float, Range(least=0), "exponent of er and erk: 0 = uniform, 1 = as published"] = 1.0
    copy_mask_from: Annotated[str, "run, or file of its weights, whose masks are the first ones"] = ""
    copy_init: Annotated[bool, "start from the initial weights of the run copy_mask_from too"] = False
    shuffle: Annotated[
        Shuffle, "draw the copied places anew, with as many a layer, or a layer and input (or output) of it"
    ] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distribution != "uniform" and (self.sparsity_fc, self.sparsity_conv) != (None, None):
            raise UsageError(f"distribution={self.distribution}: leave out sparsity_fc and sparsity_conv")
        if self.copy_init and not self.copy_mask_from:
            raise UsageError("copy_init=true: needs copy_mask_from=RUN")
        if self.shuffle != "none" and not self.copy_mask_from:
            raise UsageError(f"shuffle={self.shuffle}: needs copy_mask_from=RUN")

    @property
    def dense(self) -> bool:
        return not (self.copy_mask_from or self.sparsity or self.sparsity_fc or self.sparsity_conv)

    def idle(self) -> Reasons:
        reasons = dict(super().idle())
        if self.copy_mask_from:  # sparsities only say what is expected of it, see setup
            reasons["distribution"] = "the masks of copy_mask_from say how sparse each layer is"
            reasons["er_power"] = reasons["distribution"]
        elif self.distribution == "uniform":
            reasons["er_power"] = "it belongs to distribution=er and erk; this is uniform"
        if not self.copy_mask_from and None not in (self.sparsity_fc, self.sparsity_conv):
            reasons["sparsity"] = "sparsity_fc and sparsity_conv say it of every layer"
        return reasons

    def initial_stream(self) -> str:
        """Masks copied without their initial weights are to be tried with other ones, whatever the two seeds are."""
        return "initial weights under copied masks" if self.copy_mask_from and not self.copy_init else ""

    def initial_counts(self, sites: Mapping[str, Site]) -> dict[str, int]:
        units = {name: units_of(site, self.granularity) for name, site in sites.items()}
        if self.copy_mask_from:
            return units  # the masks come in setup; weights that are evaluated bring their own
        if self.distribution == "uniform":
            given = sparsity_of_layers(sites, self.sparsity, self.sparsity_fc, self.sparsity_conv)
            return {n: uniform_count(units[n], s) for n, s in given.items()} if any(given.values()) else {}
        shapes = [site.weight.shape for site in sites.values()]
        if flat := [name for name, site in sites.items() if site.weight.ndim < 2]:
            raise UsageError(
                f"distribution={self.distribution}: goes by the sides of matrices and kernels, and {flat[0]} is a bank "
                "of values without any; give distribution=uniform"
            )
        densities = erk_density(shapes, self.sparsity, self.er_power, kernel=self.distribution == "erk")
        return {n: count_of(d, units[n]) for n, d in zip(units, densities, strict=True)} if self.sparsity else {}

    def sources(self, config: Config) -> dict[str, Source]:
        if not self.copy_mask_from:
            return {}
        sources = {"copy_mask_from": Source(self.copy_mask_from, wants="newest weights")}
        return sources | ({"copy_init": Source(self.copy_mask_from, wants="initial weights")} if self.copy_init else {})

    def setup(self, run: Run) -> None:
        if self.copy_mask_from:
            if self.copy_init:
                copy_parameters(run.model, run.sources[self]["copy_init"], self.copy_mask_from)
            masks = run.sources[self]["copy_mask_from"]
            copy_masks(run.model, masks, self.copy_mask_from, self.shuffle, partial(run.generator, "shuffled mask"))
        super().setup(run)

    def epoch_start(self, run: Run) -> None:
        super().epoch_start(run)
        if run.step == 0 and self.copy_mask_from:
            active, units = sum(len(t.active) for t in self.tensors), sum(t.units for t in self.tensors)
            zeros, given = 1 - active / units, (self.sparsity, self.sparsity_fc, self.sparsity_conv)
            as_given = any(abs(sparsity - zeros) < 0.005 for sparsity in given if sparsity)
            told = "" if as_given else f"; sparsity={self.sparsity:g} has no effect"
            how = "" if self.shuffle == "none" else f", their places shuffled (shuffle={self.shuffle}),"
            run.note(f"under the masks of {self.copy_mask_from}{how} {zeros:.4f} of the units are 0{told}")


@dataclass(eq=False)
class RewiringHook(SparseHook):
    """A sparse network whose masks change every so many steps. Subclasses implement ``rewire``."""

    period: Annotated[When | Piecewise, "steps between two events, by epoch such as '0:100 25:200'"] = Piecewise("100")
    stop_epoch: Annotated[int | When, Range(least=0), "first epoch without events"] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs = () if is_when(self.period) else self.period.pairs
        if any(value < 1 or value != int(value) for _, value in pairs) or not self.period:
            raise UsageError(f"period={self.period!r}: expected whole numbers of steps >= 1, such as '0:100 25:200'")

    def never(self, run: Run) -> str:
        if not self.counts:
            return ""
        stop = self.stop(run)
        for epoch in range(run.epochs):
            first, last = max(1, epoch * run.steps_per_epoch), min((epoch + 1) * run.steps_per_epoch, stop) - 1
            period = self.period_in(run, epoch)
            if last // period * period >= first:
                return ""
        steps = f"the {run.epochs * run.steps_per_epoch} steps of the run"
        return f"with period={self.period} and stop_epoch={self.stop_epoch} no event falls into {steps}"

    def stop(self, run: Run) -> int:
        """The first step, from 0, without events."""
        return math.ceil(in_steps(self.stop_epoch, "ep", run.epochs, run.steps_per_epoch))

    def period_in(self, run: Run, epoch: int) -> int:
        """Steps between two events in ``epoch``."""
        period = self.period if is_when(self.period) else self.period.at(epoch)
        return every(period, run.epochs, run.steps_per_epoch)

    def rewire(self, run: Run) -> tuple[Event, dict[str, Any]]:
        """Change the masks; what was done, and further values for its row of metrics."""
        raise NotImplementedError

    def step_end(self, run: Run) -> None:
        super().step_end(run)
        step = run.step - 1
        due = self._late or event_due(step, self.period_in(run, run.epoch))
        if self.tensors and step < self.stop(run) and due and not self.put_off(run, step):
            event, values = self.rewire(run)
            self.changed(run, event)
            self.log_event(run, event.pruned_count, event.grown_count, **values)


def sparsity_of_layers(
    sites: Mapping[str, Site], sparsity: float, fc: float | None, conv: float | None
) -> dict[str, float]:
    """The sparsity of each layer by name: that of its kind where there is one."""
    own = {name: fc if site.linear else conv for name, site in sites.items()}
    return {name: sparsity if s is None else s for name, s in own.items()}


def idle_sparsities(choice: Choice) -> dict[str, str]:
    """Why parameters that single out a kind of layer have no effect on a network."""
    reasons = {}
    if all(site.linear for site in choice.sparse.values()):
        reasons["sparsity_conv"] = "no convolution can be sparse here"
    if not any(site.linear for site in choice.sparse.values()):
        reasons["sparsity_fc"] = "no matrix of a linear layer can be sparse here"
    if not any(is_shortcut(name) for name in choice.sparse):
        reasons["sparse_downsample"] = "the network has no convolutions of shortcuts"
    return reasons


def regularizer(tensors: Sequence[Masked], group_lasso: bool = False) -> Tensor:
    """Sum of abs(w) over the sparse tensors; kernels by ``group_lasso``: sum over slices of sqrt(sum w^2 + 1e-12)."""
    terms = [
        (tensor.weight.square().sum((-2, -1)) + 1e-12).sqrt().sum()
        if group_lasso and tensor.weight.ndim == 4
        else torch.linalg.vector_norm(tensor.weight, 1)
        for tensor in tensors
    ]
    return torch.stack(terms).sum()


def forget(optimizer: torch.optim.Optimizer, tensor: Masked, units: Tensor) -> None:
    """Set the optimizer's state (momentum, moments) of ``units`` to 0."""
    for value in optimizer.state.get(tensor.weight, {}).values():
        if isinstance(value, Tensor) and value.shape == tensor.weight.shape:
            tensor.write(value, units, 0.0)


def units_of(site: Site, granularity: int) -> int:
    """Units of a mask on it."""
    return torch.Size(mask_shape(site.weight, granularity)).numel()
