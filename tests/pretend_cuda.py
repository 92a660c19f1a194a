"""A GPU that is not there: tensors that say cuda:0, hold their values on the CPU, and refuse to meet CPU tensors.

``with pretend_cuda() as gpu: ...`` runs any code on such tensors with true numbers: devices are checked as CUDA checks
them, and ``gpu.taken()`` lists each host synchronisation and each copy that the host waits for, with the line that
caused it. A copy to the GPU is waited for unless it leaves from pinned memory.

What it cannot show: kernels, rounding, streams, memory, NCCL and torch.compile of a GPU, and waits inside operators
that are made of others in C++. ``gpu_cases.py`` and ``gpu_computations.py`` run the same cases on a real one.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager, nullcontext
from unittest import mock

import torch
import torch.optim.swa_utils
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from research.checkpoints import checkpoint

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
SYNCS = {  # what must know values on the host: the CPU waits for the GPU
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.nonzero_numpy.default: "nonzero",
    aten.is_nonzero.default: "bool",
    aten.equal.default: "equal",
    aten.masked_select.default: "masked_select",
    aten.unique_dim.default: "unique",
    aten._unique2.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.bincount.default: "bincount",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten._linalg_eigh.default: "eigh (checks info)",
    aten.linalg_eigvalsh.default: "eigvalsh (checks info)",
    aten._linalg_svd.default: "svd",
}


class OnGpu(Tensor):
    """A tensor of cuda:0; ``held`` has its values. To C++ it is one of the CPU, whose autograd needs no driver."""

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False):
        return Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device="cpu", requires_grad=requires_grad,
        )  # fmt: skip

    def __init__(self, held: Tensor, requires_grad: bool = False):
        self.held = held

    def __tensor_flatten__(self):
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner, meta, size, stride):
        return OnGpu(inner["held"])

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return Gpu.current.run(func, args, kwargs or {})

    @property
    def looks_as_held(self) -> bool:
        return self.shape == self.held.shape and self.stride() == self.held.stride()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def to(self, *args, **kwargs):
        """``Tensor.to`` that knows where it is, and where another tensor is."""
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, async_, memory_format = torch._C._nn._parse_to(
            *args, **{k: v for k, v in kwargs.items() if k != "copy"}
        )
        copy = kwargs.get("copy", False)
        if device is not None and not is_cuda(device):
            Gpu.current.leaving = True
            try:
                return torch.ops.aten._to_copy(
                    self, device=device, dtype=dtype, memory_format=memory_format, non_blocking=async_
                )
            finally:
                Gpu.current.leaving = False
        kept = dtype in (None, self.dtype) and (
            memory_format is None or self.is_contiguous(memory_format=memory_format)
        )
        return (
            self
            if kept and not copy
            else torch.ops.aten._to_copy(self, dtype=dtype or self.dtype, memory_format=memory_format)
        )

    def cpu(self, *args, **kwargs):
        return self.to("cpu")

    def cuda(self, *args, **kwargs):
        return self

    def type_as(self, other):
        return self.to(other.device, other.dtype)

    def pin_memory(self, *args, **kwargs):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def tolist(self):
        Gpu.current.record("tolist")
        return self.held.tolist()

    def data_ptr(self):
        return self.held.data_ptr()

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)

    def __repr__(self, **kwargs):
        return f"OnGpu({self.held})"

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copy = OnGpu(self.held.detach().clone(), self.requires_grad)
            if isinstance(self, nn.Parameter) or getattr(self, "_is_param", False):
                copy = nn.Parameter(OnGpu(self.held.detach().clone()), self.requires_grad)
            memo[id(self)] = copy
        return memo[id(self)]


def is_cuda(device) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def tensors_in(values) -> list[Tensor]:
    """The tensors among arguments of an operator, which may be lists."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_in(value)
    return found


def held(value):
    """An argument of an operator with the tensors of the CPU that hold its values."""
    if isinstance(value, OnGpu):
        return value.held
    return type(value)(map(held, value)) if type(value) in (list, tuple) else value


def pinned(tensor: Tensor) -> Tensor:
    """``Tensor.pin_memory``: from memory that is not pinned a copy to the GPU waits, whatever it asks for."""
    copy = tensor.clone()
    Gpu.current.pinned.append(copy)  # while it lives nothing else lies there
    return copy


def is_pinned(tensor: Tensor) -> bool:
    place = tensor.data_ptr()
    return any(p.data_ptr() <= place < p.data_ptr() + max(1, p.nbytes) for p in Gpu.current.pinned)


class Gpu(TorchDispatchMode):
    current: Gpu

    def __init__(self, package: str = "research"):
        super().__init__()
        self.package, self.events, self.recording, self.kernels = package, [], False, 0
        self.pinned: list[Tensor] = []
        self.calls, self.leaving = (
            [],
            False,
        )  # of Python: does any argument lie on the GPU; is a copy to the host wanted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    # -- what happened ------------------------------------------------------------------------------------------

    def record(self, kind: str) -> None:
        if not self.recording:
            return
        where = "?"
        frame = sys._getframe(1)
        while frame:
            name = frame.f_code.co_filename
            if f"/{self.package}/" in name:
                where = f"{name.split('/' + self.package + '/')[-1]}:{frame.f_lineno}"
                break
            frame = frame.f_back
        self.events.append((kind, where))

    def taken(self) -> list[tuple[str, str]]:
        """What was recorded since it was asked before, and from now on anew."""
        events, self.events, self.recording = self.events, [], True
        return events

    # -- one operator -------------------------------------------------------------------------------------------

    def run(self, func, args, kwargs):
        if func is aten.to.device:  # whole in inference mode, where others are taken apart
            tensor, device, dtype, *how = args
            kwargs = {"device": device, "dtype": dtype, "non_blocking": bool(how and how[0])}
            return self.run(aten._to_copy.default, (tensor,), kwargs)
        tensors = tensors_in((*args, *kwargs.values()))
        ours = [t for t in tensors if isinstance(t, OnGpu)]
        asked = kwargs.get("device")
        if not ours and not is_cuda(asked):
            # made by C++ beside a tensor that it takes for one of the CPU: belongs to where that one is
            inner = not tensors and asked is not None and self.calls and self.calls[-1]
            return OnGpu(func(*args, **kwargs)) if inner else func(*args, **kwargs)
        self.kernels += 1
        if func in (aten._to_copy.default, aten.copy_.default, aten._copy_from.default):
            return self.copy(func, args, kwargs)
        kwargs = dict(kwargs)
        if ours:
            self.check(func, args, tensors)
        if "device" in kwargs:
            to_gpu = is_cuda(asked) if asked is not None else bool(ours)
            kwargs["device"] = torch.device("cpu")
            to_gpu = to_gpu or bool(ours and self.calls and self.calls[-1])
        else:
            to_gpu = True
        kwargs.pop("pin_memory", None)
        if func in SYNCS:
            self.record(SYNCS[func])
            if func is aten._local_scalar_dense.default:
                return func(args[0].held)
        if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default):
            masks = [i for i in args[1] if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)]
            scalar = func is not aten.index.Tensor and args[2].numel() == 1
            if masks and not scalar:
                self.record("index by mask")
        out = func(*held(args), **{name: held(value) for name, value in kwargs.items()})
        if func is aten.set_.source_Tensor:
            args[0].held = args[1].held
            return args[0]
        if not to_gpu:
            return out
        # a view of a plain tensor is a plain one in inference mode too
        plain_view = func.is_view and ours and not ours[0].is_inference() and torch.is_inference_mode_enabled()
        with torch.inference_mode(False) if plain_view else nullcontext():
            wrapped = tree_map_only(Tensor, lambda t: t if isinstance(t, OnGpu) else OnGpu(t), out)
        return self.written(func, args, kwargs) if self.writes(func) else wrapped

    @staticmethod
    def writes(func) -> bool:
        """Whether what the operator returns is one of its arguments."""
        returned = func._schema.returns
        return bool(returned) and returned[0].alias_info is not None and returned[0].alias_info.is_write

    @staticmethod
    def written(func, args, kwargs):
        found = []
        for at, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                found.append(args[at] if at < len(args) else kwargs[argument.name])
        for tensor in found:
            if isinstance(tensor, OnGpu) and (
                tensor.shape != tensor.held.shape or tensor.stride() != tensor.held.stride()
            ):
                with torch._C._DisableTorchDispatch():
                    tensor.as_strided_(tensor.held.shape, tensor.held.stride(), tensor.held.storage_offset())
            if isinstance(tensor, OnGpu) and (
                tensor.shape != tensor.held.shape or tensor.stride() != tensor.held.stride()
            ):
                raise NotImplementedError(f"{func} changes the shape of a pretended tensor")
        return found[0] if len(func._schema.returns) == 1 else tuple(found)

    def check(self, func, args, tensors) -> None:
        """CUDA's rule: tensors of a CPU may only be numbers, or indices."""
        name = func._schema.name
        for tensor in tensors:
            if isinstance(tensor, OnGpu) or tensor.ndim == 0:
                continue
            if "index" in name and name.split("::")[1] in ("index", "index_put_", "index_put", "_index_put_impl_"):
                if any(tensor is i for i in args[1]):
                    self.record("index from the host")
                    continue
            raise RuntimeError(f"Expected all tensors to be on the same device, but got cpu and cuda:0 ({name})")

    def copy(self, func, args, kwargs):
        kwargs = dict(kwargs)
        if func is aten._to_copy.default:
            (source,) = args
            target = kwargs.pop("device", None) or source.device
            target = source.device if isinstance(source, OnGpu) and "dtype" in kwargs and target is None else target
            plain = source.held if isinstance(source, OnGpu) else source
            async_ = kwargs.pop("non_blocking", False) and is_pinned(source)
            kwargs.pop("pin_memory", None)
            out = func(plain, **kwargs)
            here, there = isinstance(source, OnGpu), is_cuda(target)
            there = there or (here and not self.leaving)  # C++ asks for "the same device"
            if here and not there:
                self.record("copy to host")
            elif there and not here:
                if not async_:
                    self.record("blocking copy from host")
            return OnGpu(out) if there else out
        target, source = args[:2]
        async_ = (args[2] if len(args) > 2 else kwargs.get("non_blocking", False)) and is_pinned(source)
        here, there = isinstance(source, OnGpu), isinstance(target, OnGpu)
        if here and not there:
            self.record("copy to host")
        elif there and not here and not async_:
            self.record("blocking copy from host" if source.ndim or source.numel() > 1 else "blocking scalar from host")
        (target.held if there else target).copy_(source.held if here else source)
        return target


class Calls(TorchFunctionMode):
    """Knows which call of Python an operator belongs to."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        calls = Gpu.current.calls
        if func is Tensor.to and len(args) > 1 and isinstance(args[1], OnGpu):
            args = (args[0], CUDA, args[1].dtype, *args[2:])
        calls.append(any(isinstance(t, OnGpu) for t in tensors_in((*args, *(kwargs or {}).values()))))
        try:
            return func(*args, **(kwargs or {}))
        finally:
            calls.pop()


def _apply(module: nn.Module, fn, recurse: bool = True) -> nn.Module:
    """``nn.Module._apply`` that keeps the identity of parameters, as ``param.data = …`` does on a true GPU."""
    if recurse:
        for child in module.children():
            _apply(child, fn)
    for own in (module._parameters, module._buffers):
        for key, tensor in own.items():
            if tensor is None:
                continue
            with torch.no_grad():
                new = fn(tensor)
            if new is tensor:
                continue
            if own is module._buffers:
                own[key] = new
                continue
            swap(tensor, new)
    return module


def swap(parameter: Tensor, new: Tensor) -> None:
    """Give ``parameter`` the content and type of ``new`` without changing which object it is."""
    if isinstance(parameter, OnGpu) and isinstance(new, OnGpu):  # another memory format
        parameter.held = new.held
        with torch.no_grad(), torch._C._DisableTorchDispatch():
            parameter.as_strided_(new.held.shape, new.held.stride())
        return
    fresh = nn.Parameter(new, parameter.requires_grad)
    hooks = getattr(parameter, "_post_accumulate_grad_hooks", None)
    torch.utils.swap_tensors(parameter, fresh)
    if hooks:
        raise RuntimeError("a parameter with gradient hooks was moved")


def made_on_host(make):
    def made(data, *args, device=None, **kwargs):
        if isinstance(data, OnGpu):
            return data.to(device or CUDA, kwargs.get("dtype") or data.dtype)
        found = make(data, *args, **kwargs)
        return found.to(device) if device is not None else found

    return made


def grouped_by_device(group):
    """torch's grouping of tensors, with the devices that they say they are on."""

    def grouping(lists, with_indices=False):
        groups = {}
        for (device, dtype), value in group(lists, with_indices).items():
            devices = [t.device for own in value[0] for t in own if isinstance(t, OnGpu)]
            groups[devices[0] if devices else device, dtype] = value
        return groups

    return grouping


@contextmanager
def pretend_cuda(package: str = "research"):
    """A context with one GPU, cuda:0."""
    gpu = Gpu.current = Gpu(package)
    load = torch.load

    def loaded(file, map_location=None, **kwargs):
        state = load(file, map_location="cpu", **kwargs)
        return tree_map_only(Tensor, lambda t: t.to(CUDA), state) if is_cuda(map_location) else state

    def save_model(model, path):
        gpu.record("copy to host")
        plain = {name: t.held if isinstance(t, OnGpu) else t for name, t in model.state_dict().items()}
        save_file({name: tensor.contiguous().clone() for name, tensor in plain.items()}, path)

    autocast, grouping = torch.autocast, "_group_tensors_by_device_and_dtype"
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "set_device": lambda device: None,
        "current_device": lambda: 0,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "synchronize": lambda *_: gpu.record("synchronize"),
        "get_device_name": lambda *_: "pretend",
        "max_memory_allocated": lambda *_: 0,
        "mem_get_info": lambda *_: (80 * 10**9, 80 * 10**9),
        "is_bf16_supported": lambda *_, **__: True,
        "get_device_capability": lambda *_: (9, 0),
        "is_current_stream_capturing": lambda: False,
    }
    capture_check = "_accelerator_graph_capture_health_check"
    if not hasattr(torch.optim.Optimizer, capture_check):  # its name in older versions of torch
        capture_check = "_cuda_graph_capture_health_check"
    replaced = [(torch.cuda, name, value) for name, value in cuda.items()]
    replaced += [
        (Tensor, "pin_memory", pinned),
        (Tensor, "is_pinned", is_pinned),
        (nn.Module, "_apply", _apply),
        (checkpoint, "save_model", save_model),
        (torch.optim.Optimizer, capture_check, lambda self: None),
        (torch, "autocast", lambda kind, *args, **kw: autocast("cpu" if kind == "cuda" else kind, *args, **kw)),
        (torch, "load", loaded),
    ]
    for module in map(sys.modules.get, ("torch.optim.optimizer", "torch.optim.swa_utils", "torch.nn.utils.clip_grad")):
        replaced.append((module, grouping, grouped_by_device(getattr(module, grouping))))
    for name in ("tensor", "as_tensor"):  # which build in C++, beneath every mode
        replaced.append((torch, name, made_on_host(getattr(torch, name))))
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(gpu)
        stack.enter_context(Calls())
        yield gpu
