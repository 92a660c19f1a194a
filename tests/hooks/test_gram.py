"""The GraM hook: when it measures, what it measures, and what it does to gradients."""

import json
import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import GOLDENS, rows, weights
from torch import nn
from torch.nn import functional as F

from research.devices import use_tf32
from research.distributed import destroy_distributed
from research.frames.gram import load_gram
from research.hooks import HOOKS, Hook
from research.hooks.gram import Gram, describe, spatial_convolutions
from research.measures import nmi
from research.runs.paths import RunPaths
from research.runs.run import Run
from research.training.loop import fit

GOLDEN = GOLDENS / "gram"
VARIANTS = {"A": "center", "B": "allpairs", "C": "sparse"}


class Batches(list):
    """As much of a loader as the hook asks for."""

    def set_epoch(self, epoch):
        pass

    def head(self, count):
        return ((x, None) for x in self[:count])


class FakeRun(SimpleNamespace):
    """As much of a run as the hook asks for; keeps notes and rows."""

    def __init__(self, model, *batches, epoch=1, rank=1):
        config = SimpleNamespace(batch_size=len(batches[0]) if batches else 0)
        super().__init__(model=model, train_loader=Batches(batches), config=config, epoch=epoch, rank=rank)
        self.device, self.notes, self.rows = torch.device("cpu"), [], []

    def note(self, text):
        self.notes.append(text)

    def log(self, split, **values):
        self.rows.append(values)


def trained(config) -> Run:
    return fit(Run.create(config))


def numpy_weights(model, seed):
    """Convolution weights from frozen numpy streams, as the golden numbers were made."""
    for i, conv in enumerate(m for m in model.modules() if isinstance(m, nn.Conv2d)):
        spread = np.sqrt(2 / (conv.kernel_size[0] * conv.kernel_size[1] * (conv.out_channels // conv.groups)))
        drawn = np.random.RandomState(seed + i).standard_normal(tuple(conv.weight.shape)) * spread
        conv.weight.data = torch.from_numpy(drawn.astype(np.float32))
    return model


def mini_mobilenet():
    def unit(conv):
        return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]

    def block(before, after, stride):
        depthwise = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
        return nn.Sequential(*unit(depthwise), *unit(nn.Conv2d(before, after, 1, bias=False)))

    stem = nn.Sequential(*unit(nn.Conv2d(3, 8, 3, 2, 1, bias=False)))
    return nn.Sequential(stem, block(8, 16, 1), block(16, 24, 2), block(24, 24, 1))


@pytest.mark.parametrize("letter", VARIANTS)
def test_pipeline_of_the_reference(letter):
    """Two batches pooled, evaluation mode, a network of plain and depthwise convolutions."""
    golden = np.load(GOLDEN / "d23_minimobilenet.npz")
    noise = np.random.RandomState(402).standard_normal((8, 3, 32, 40)).astype(np.float32).astype(np.float64)
    for axis in (2, 3):
        noise = np.roll(noise, -1, axis) + noise + np.roll(noise, 1, axis)
    x = torch.from_numpy((noise / 3).astype(np.float32))
    run = FakeRun(numpy_weights(mini_mobilenet(), 6000).train(), x[:4], x[4:])
    measured = {k: Gram(k=k, variant=VARIANTS[letter]).measure(run) for k in (1.0, 8.0)}
    assert run.model.training
    for k, layers in measured.items():
        assert list(layers) == ["0.0", "1.0", "2.0", "3.0"]
        for i, layer in enumerate(layers.values()):
            expected = golden[f"e2e_{letter}_mult_k{k:g}_layer{i:02d}"]
            np.testing.assert_allclose(layer.multiplier, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("case", ["d24_step_imagenet_style", "d25_step_cifar_style"])
def test_steps_of_the_reference(case):
    """Backward, multiply, SGD: weight decay is not scaled, momentum gathers scaled gradients."""
    golden = np.load(GOLDEN / f"{case}.npz")
    how = json.loads(str(golden["meta"]))
    depthwise = nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False)
    front = nn.Conv2d(2, 4, 5, 1, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.ReLU(), depthwise
    model = nn.Sequential(*front, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    parameters = dict(model.named_parameters())
    model.load_state_dict({n: torch.from_numpy(golden[f"init.{n}"]) for n in parameters}, strict=False)
    spared = [p for p in parameters.values() if p.ndim == 1 and how["no_decay_for_bias_and_bn"]]
    decayed = [p for p in parameters.values() if not any(p is other for other in spared)]
    groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    common = {name: how[name] for name in ("lr", "momentum", "weight_decay", "nesterov")}
    optimizer = torch.optim.SGD([group for group in groups if group["params"]], **common)
    hook = Gram()
    hook.load_state_dict({name: torch.from_numpy(golden[f"mult.{name}.weight"]) for name in ("0", "5")})
    for x, target in zip(golden["x"], golden["t"], strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(target)).backward()
        hook.grads(FakeRun(model))
        optimizer.step()
    for name, parameter in parameters.items():
        np.testing.assert_allclose(parameter.detach(), golden[f"after3.{name}"], rtol=0, atol=1e-5, err_msg=name)


def test_update_epochs_of_the_reference():
    for setting, expected in json.loads((GOLDEN / "d27_update_epochs.json").read_text()).items():
        epochs, warmup = map(int, setting.split(","))
        hook = Gram(epochs=epochs, warmup=warmup)
        assert [epoch for epoch in range(40) if hook.due(epoch)] == expected, setting


def test_gradients_are_scaled_after_clipping(tiny, monkeypatch):
    seen = {}

    def spy(when):
        class Spy(Hook):
            def grads(self, run):
                seen[when] = {n: p.grad.clone() for n, p in run.model.named_parameters()}
                seen["multipliers"] = run.hooks["gram"].multipliers

        return Spy

    monkeypatch.setitem(HOOKS, "before", spy("before"))
    monkeypatch.setitem(HOOKS, "after", spy("after"))
    config = tiny(model="resnet8", epochs=1, clip_norm=0.01, hooks={"before": {}, "gram": {"warmup": 0}, "after": {}})
    trained(config)
    assert torch.stack([g.norm() for g in seen["before"].values()]).norm() <= 0.01 * (1 + 1e-4)
    scaled = {f"{name}.weight": m for name, m in seen["multipliers"].items()}
    assert len(scaled) == 7
    for name, gradient in seen["before"].items():
        assert torch.equal(seen["after"][name], gradient * scaled.get(name, 1.0)), name


def test_multipliers_of_one_are_plain_training(tiny, monkeypatch):
    """Measuring leaves no trace in data order, augmentation, batch statistics or weights."""
    monkeypatch.setattr(nmi, "gradient_multiplier", torch.ones_like)
    plain = trained(tiny(model="resnet8", name="plain"))
    ones = trained(tiny(model="resnet8", name="ones", gram={"warmup": 0}))
    assert any(row["kind"] == "gram" for row in rows(ones))
    for name, weight in weights(plain).items():
        assert torch.equal(weight, weights(ones)[name]), name


def test_record_gives_back_every_matrix(tiny):
    run = trained(tiny(model="resnet8", epochs=3, batch_size=128, gram={"k": 3.0, "batches": 1000, "epochs": 2}))
    record = load_gram(run.dir, 2)
    assert sorted(path.name for path in (run.dir / "gram").iterdir()) == ["epoch_001.npz", "epoch_002.npz"]
    assert (record.epoch, record.k, record.variant) == (2, 3.0, "center")
    measured = [row for row in rows(run) if row["kind"] == "gram" and row["epoch"] == 2]
    images = 128 * len(run.train_loader)  # more batches were asked for than there are
    for layer, row in zip(record.layers, measured, strict=True):
        assert row["layer"] == layer.name and row["images"] == images
        corr = nmi.channel_mean(torch.from_numpy(layer.nmi), record.k)
        np.testing.assert_array_equal(layer.corr, corr)
        np.testing.assert_array_equal(layer.multiplier, nmi.gradient_multiplier(corr))
        assert torch.equal(run.hooks["gram"].multipliers[layer.name], torch.from_numpy(layer.multiplier))
        assert row["centre"] == pytest.approx(layer.multiplier[1, 1])
        assert row["centre"] + 8 * row["off_centre"] == pytest.approx(9, abs=1e-5)
        assert layer.bins == 1 + np.ceil(np.log2(layer.samples)) and layer.samples % images == 0


def measure_in_group(rank, world, folder, batches, variant):
    """One process of a group: measures its part of each batch, and keeps what it found."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    model = numpy_weights(mini_mobilenet(), 6000)
    for buffer in model.buffers():
        buffer += rank  # as in training, batch statistics differ between processes; rank 0's count
    parts = [x.chunk(world)[rank] for x in batches]
    layers = Gram(variant=variant).measure(FakeRun(model, *parts))
    torch.save({name: layer.multiplier for name, layer in layers.items()}, folder / f"{rank}.pt")
    destroy_distributed()


@pytest.mark.parametrize("variant", VARIANTS.values())
def test_two_processes_measure_what_one_does_on_all_images(tmp_path, variant):
    batches = list(torch.randn(2, 8, 3, 32, 40, generator=torch.Generator().manual_seed(0)))
    alone = Gram(variant=variant).measure(FakeRun(numpy_weights(mini_mobilenet(), 6000), *batches))
    fork = multiprocessing.get_context("fork")  # shares what is imported here
    group = [fork.Process(target=measure_in_group, args=(rank, 2, tmp_path, batches, variant)) for rank in (0, 1)]
    for process in group:
        process.start()
    for process in group:
        process.join(60)
        assert process.exitcode == 0
    for rank in (0, 1):
        kept = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, layer in alone.items():
            assert torch.equal(kept[name], layer.multiplier), (rank, name)


def test_only_trained_convolutions_with_several_taps_a_side_are_measured():
    model = nn.ModuleDict(
        {
            "square": nn.Conv2d(2, 2, 3),
            "row": nn.Conv2d(2, 2, (1, 3)),
            "point": nn.Conv2d(2, 2, 1),
            "up": nn.ConvTranspose2d(2, 2, 3),
            "frozen": nn.Conv2d(2, 2, 3).requires_grad_(False),
            "tied": nn.Conv2d(2, 2, 3),
            "rectangle": nn.Conv2d(2, 2, (2, 3)),
        }
    )
    model["tied"].weight = model["square"].weight
    assert list(spatial_convolutions(model)) == ["square", "rectangle"]
    assert list(spatial_convolutions(nn.Conv2d(1, 1, 3))) == [""]


def test_layers_without_a_measurement_train_plainly_and_are_named(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.alive, self.dead, self.unreached = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))

        def forward(self, x):
            return self.dead(input=self.alive(x) * 0)

    run, hook = FakeRun(Net(), torch.randn(4, 2, 8, 8), rank=0), Gram()
    run.paths = RunPaths(tmp_path)
    hook.epoch_start(run)
    assert list(hook.multipliers) == ["alive"]
    assert any("no input channel of dead varies" in note for note in run.notes)
    run.model(torch.randn(2, 2, 8, 8)).sum().backward()
    plain = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
    hook.grads(run)
    for name, gradient in plain.items():
        expected = gradient * hook.multipliers["alive"] if name == "alive.weight" else gradient
        assert torch.equal(run.model.get_parameter(name).grad, expected)


def test_warming_up_and_models_without_work_are_said():
    run = FakeRun(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.randn(4, 1, 2, 2), epoch=0)
    Gram(warmup=2).epoch_start(run)
    assert run.notes == ["gram: warming up, plain training until epoch 2"]
    run.epoch = 2
    Gram(warmup=2).epoch_start(run)
    assert "nothing is scaled" in run.notes[1]


def test_channel_with_nan_is_named_and_left_out():
    x = torch.randn(4, 2, 8, 8)
    x[0, 1, 0, 0] = torch.nan
    run, hook = FakeRun(nn.Sequential(nn.Conv2d(2, 2, 3)), x), Gram()
    hook.epoch_start(run)
    assert any("1 input channels of 0 hold nan or inf" in note for note in run.notes)
    torch.testing.assert_close(
        hook.multipliers["0"], nmi.gradient_multiplier(nmi.correlation_matrix(x[:, :1], 3)), rtol=1e-6, atol=0
    )


def test_measuring_is_true_float32_whatever_training_computes_with():
    conv, seen = nn.Conv2d(2, 2, 3), []

    def look(*_) -> None:
        tf32 = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
        seen.append((*tf32, torch.is_autocast_enabled("cpu")))

    conv.register_forward_hook(look)
    use_tf32("everything")
    with torch.autocast("cpu", torch.bfloat16):
        Gram().epoch_start(FakeRun(nn.Sequential(conv), torch.randn(4, 2, 8, 8)))
        conv(torch.randn(4, 2, 8, 8))
    assert seen == [(False, "highest", False), (True, "high", True)]
    use_tf32("convolutions")


def test_anisotropy_compares_rows_with_columns():
    flat = torch.tensor([[0.0, 1, 0], [2, 4, 2], [0, 1, 0]])
    assert describe(flat) == {"centre": 4.0, "off_centre": 0.75, "anisotropy": 2.0}
    assert describe(flat.T)["anisotropy"] == 0.5


def test_controls_train_with_their_own_places_and_say_so(tiny):
    """Values of M at taps drawn once for the run, whatever the epoch; what was measured stays on record."""
    run = trained(tiny(model="resnet8", epochs=3, gram={"place": "permuted", "warmup": 0, "batches": 1}))
    places = []
    for epoch in (0, 2):
        record = load_gram(run.dir, epoch)
        measured = [nmi.gradient_multiplier(torch.from_numpy(layer.corr)).numpy() for layer in record.layers]
        for layer, m in zip(record.layers, measured, strict=True):
            np.testing.assert_array_equal(np.sort(layer.multiplier, axis=None), np.sort(m, axis=None))
        places.append([layer.multiplier.argmax() for layer in record.layers])
        assert len({int(place) for place in places[-1]}) > 1  # a draw of its own for every layer
    assert places[0] == places[1]
    for layer in record.layers:
        assert torch.equal(run.hooks["gram"].multipliers[layer.name], torch.from_numpy(layer.multiplier))
