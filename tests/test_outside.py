"""The examples of research/OUTSIDE.md, in the loops of others: what each method promises holds in every step."""

import copy
from functools import partial
from itertools import pairwise

import pytest
import timm
import torch
from test_documents import BLOCKS
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.transforms import ToTensor

from research.config import Config
from research.data.choice import make_loader
from research.errors import UsageError
from research.hooks.power_grad import power_grad_cross_entropy
from research.measures.ldi import ldi, sequence_ldi
from research.measures.nmi import correlation_matrix, gradient_multiplier
from research.measures.nn_mass import nn_mass

ALPHA, K, PERIOD, STEPS = 0.25, 8, 3, 8
LABELS = torch.tensor([label for _, label in FakeData(STEPS * 8, (3, 16, 16), 10)]).split(8)


def example(beginning: str) -> dict:
    """What the block of the document that has the line ``beginning`` defines."""
    (block,) = [b for b in BLOCKS if b.document.name == "OUTSIDE.md" and beginning in b.code]
    names: dict = {}
    exec(block.code, names)
    return names


def batches() -> DataLoader:
    return DataLoader(FakeData(STEPS * 8, (3, 16, 16), 10, ToTensor()), batch_size=8)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)


class Watch:
    """Sees what a network computes and what its optimizer is given, without asking the example."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer):
        self.model, self.optimizer = model, optimizer
        self.measured: dict[str, torch.Tensor] = {}  # inputs of convolutions when M was last measured
        self.before: dict[str, torch.Tensor] = {}
        self.masks: list[list[torch.Tensor]] = []
        self.steps = 0
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d) and min(module.kernel_size) > 1:
                module.register_forward_pre_hook(partial(self.see_input, name))
        model.register_forward_hook(self.see_logits)

    def see_input(self, name, conv, inputs):
        if not self.model.training:
            self.measured[name] = inputs[0].detach().clone()

    def see_logits(self, model, inputs, logits):
        if model.training:
            logits.register_hook(partial(self.see_gradient_of_logits, logits.detach(), LABELS[self.steps]))

    def see_gradient_of_logits(self, z, labels, gradient):
        torch.testing.assert_close(gradient, ((ALPHA * z).softmax(1) - F.one_hot(labels, 10)) / len(z))

    def see_plain_gradients(self):
        """From backward on, before any mask: to be called before the example adds its own hooks."""
        for name, weight in self.model.named_parameters():
            weight.register_post_accumulate_grad_hook(lambda w, name=name: self.before.update({name: w.grad.clone()}))

    def see_clipped_gradients(self, *_):
        self.before = {name: weight.grad.clone() for name, weight in self.model.named_parameters()}

    def see_update(self, *_):
        """What the optimizer is given: the plain gradient times mask times M."""
        buffers = dict(self.model.named_buffers())
        for name, weight in self.model.named_parameters():
            expected = self.before[name] * buffers.get(f"{name}_mask", 1)
            if (layer := name.removesuffix(".weight")) in self.measured:
                conv = self.model.get_submodule(layer)
                corr = correlation_matrix(self.measured[layer], conv.kernel_size, conv.padding, k=K)
                multiplier = gradient_multiplier(corr)
                assert multiplier.std() > 1e-4  # else it would prove nothing
                expected = expected * multiplier
            torch.testing.assert_close(weight.grad, expected)
        self.masks.append([mask.clone() for name, mask in buffers.items() if name.endswith("_mask")])
        self.steps += 1

    def hold(self, tensors):
        """After the last step."""
        spatial = [m for m in self.model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
        assert self.steps == STEPS and len(self.measured) == len(spatial)
        counts = {sum(int(mask.sum()) for mask in masks) for masks in self.masks}
        assert len(counts) == 1 and 0.09 < counts.pop() / sum(t.units for t in tensors) < 0.11
        moved = [any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in pairwise(self.masks)]
        assert [step for step, m in enumerate(moved, 1) if m] == [PERIOD, 2 * PERIOD]
        for tensor in tensors:
            assert tensor.weight[~tensor.mask].count_nonzero() == 0 < tensor.weight.count_nonzero()
            assert self.optimizer.state[tensor.weight]["momentum_buffer"][~tensor.mask].count_nonzero() == 0


def test_a_bare_loop(model):
    optimizer = sgd(model)
    watch = Watch(model, optimizer)
    watch.see_plain_gradients()
    optimizer.register_step_pre_hook(watch.see_update)
    watch.hold(example("power_grad_cross_entropy(model(images)")["train"](model, optimizer, batches(), PERIOD))


def test_a_lightning_callback(model, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, batch_idx):
            return power_grad_cross_entropy(self.model(batch[0]), batch[1], ALPHA)

        def configure_optimizers(self):
            return optimizer

    class See(lightning.Callback):
        def on_before_optimizer_step(self, *_):
            watch.see_update()

    optimizer = sgd(model)
    watch = Watch(model, optimizer)
    watch.see_plain_gradients()
    callback = example("import lightning")["GramDsr"]()
    callback.period = PERIOD
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[callback, See()], default_root_dir=tmp_path, **quiet
    )
    trainer.fit(Module(), batches())
    watch.hold(callback.tensors)


def test_the_step_of_timms_train_script(model):
    """Its ``train_one_epoch``: a task or the loss, backward, clipping by timm's function, the update."""
    from timm.optim import create_optimizer_v2
    from timm.utils import dispatch_clip_grad

    optimizer = create_optimizer_v2(model, opt="momentum", lr=0.05, weight_decay=1e-4)
    watch = Watch(model, optimizer)
    optimizer.register_step_pre_hook(watch.see_clipped_gradients)
    tensors = example("def add_methods")["add_methods"](model, optimizer, next(iter(batches()))[0], PERIOD)
    optimizer.register_step_pre_hook(watch.see_update)
    loss_fn = partial(power_grad_cross_entropy, alpha=ALPHA)
    norms = []
    model.train()
    for images, labels in batches():
        optimizer.zero_grad()
        loss_fn(model(images), labels).backward()
        dispatch_clip_grad(model.parameters(), value=0.5, mode="norm")
        norms.append(torch.nn.utils.get_total_norm([w.grad for w in model.parameters()]).item())
        optimizer.step()
    assert max(norms) == pytest.approx(0.5, abs=1e-4)  # clipped, by the norm of what the masks leave
    watch.hold(tensors)


def test_measures_of_a_network_of_timms():
    found = example("timm.create_model")
    model, isometry = found["model"], found["isometry"]
    assert found["mass"] == pytest.approx(9006.93, abs=0.005) == sum(b.mass for b in found["blocks"].values())
    assert len(found["blocks"]) == 16 and 0 < found["density"] < 1
    first, last = isometry.layers
    head = torch.linalg.svdvals(found["mlp"][-1].weight.detach().double())
    assert first > 0 and 0 < last < head.mean() and isometry.count == 100 * (64 + 10)
    for refused, told in [
        (lambda: nn_mass(timm.create_model("vit_tiny_patch16_224")), "NN-Mass"),
        (lambda: ldi(model, torch.rand(1, 3, 32, 32)), "LDI is defined for dense_mlp, not for ResNet"),
        (lambda: sequence_ldi(model, torch.rand(1, 3, 32, 32)), "needs an nn.Sequential, not ResNet"),
    ]:
        with pytest.raises(UsageError, match=told):
            refused()


def test_our_loaders_in_a_loop_of_yours():
    found = example("def accuracy")
    seen: list[torch.Tensor] = []
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    again = copy.deepcopy(model)
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    found["train"](model, torch.optim.SGD(model.parameters(), 0.1), epochs=5)
    steps = len(make_loader(Config.load({"dataset": "digits", "batch_size": 64}), "train"))
    assert len(seen) == 5 * steps and all(len(images) == 64 for images in seen)
    assert not torch.equal(seen[0], seen[steps])  # another epoch, other images
    found["train"](again, torch.optim.SGD(again.parameters(), 0.1), epochs=5)
    assert torch.equal(model[1].weight, again[1].weight)
    assert found["accuracy"](model) > 0.85
