"""Mixup and CutMix: torchvision's mixtures, drawn from (seed, epoch, batch), and the losses of soft targets."""

from types import SimpleNamespace

import pytest
import torch
from conftest import Killed, assert_same_run
from torch.nn import functional as F
from torchvision.transforms import v2

from research.config import Config
from research.data.augment import Augment
from research.data.choice import check, make_loader
from research.data.draws import bits_of_batch
from research.data.mixing import Mixing, labels_of
from research.errors import UsageError
from research.hooks.auxiliary import Auxiliary
from research.hooks.epoch_means import EpochMeans
from research.runs.run import Run
from research.training.loop import fit
from research.training.meter import Meter
from research.training.preflight import preflight
from research.training.prepare import prepare

BOTH = {"mixup": 0.4, "cutmix": 1.0}


def batch(tiny, **data_args) -> tuple[torch.Tensor, torch.Tensor, Mixing]:
    """One step of the digits, and how it is mixed."""
    loader = make_loader(tiny(), "train")
    ((inputs, targets),) = loader.head(1)
    return inputs, targets, Mixing(Augment(**data_args), loader.info, seed=3)


@pytest.mark.parametrize(("name", "transform"), [("mixup", v2.MixUp), ("cutmix", v2.CutMix)])
def test_mixtures_are_those_of_torchvision_for_the_draw_of_the_step(tiny, name, transform):
    inputs, targets, mixing = batch(tiny, **{name: 0.7})
    for place in (0, 5):
        mixed, shares = mixing(inputs, targets, epoch=2, batch=place)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(bits_of_batch(place, seed=3, epoch=2))
            expected, expected_shares = transform(alpha=0.7, num_classes=10)(inputs, targets)
        assert torch.equal(mixed, expected) and torch.equal(shares, expected_shares)
        assert not torch.equal(mixed, inputs)
        torch.testing.assert_close(shares.sum(1), torch.ones(len(targets)))


def test_a_draw_depends_on_seed_epoch_and_batch_alone_and_moves_no_generator(tiny):
    inputs, targets, mixing = batch(tiny, **BOTH)
    state = torch.get_rng_state()
    first = mixing(inputs, targets, 0, 0)[1]
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(5)
    assert torch.equal(mixing(inputs, targets, 0, 0)[1], first)
    mixing.seed = 4
    assert not torch.equal(mixing(inputs, targets, 0, 0)[1], first)
    mixing.seed = 3
    assert not torch.equal(mixing(inputs, targets, 1, 0)[1], first)
    assert not torch.equal(mixing(inputs, targets, 0, 1)[1], first)


def test_without_either_a_step_stays_as_it_is(tiny):
    inputs, targets, mixing = batch(tiny)
    assert mixing(inputs, targets, 0, 0) == (inputs, targets)


@pytest.mark.parametrize("alpha", [None, 0.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_those_of_the_distributions(tiny, alpha, smoothing):
    hooks = {"power_grad": {"alpha": alpha}} if alpha else {}
    run = Run.create(tiny(smoothing=smoothing, hooks=hooks, data_args=BOTH))
    prepare(run)
    ((inputs, targets),) = run.train_loader.head(1)
    _, q = run.mixing(inputs, targets, 0, 0)
    z = torch.randn(q.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = run.criterion(z, q)
    torch.testing.assert_close(loss, F.cross_entropy(z, q.double(), label_smoothing=smoothing))
    loss.backward()
    expected = ((alpha or 1) * z).softmax(1) - (1 - smoothing) * q - smoothing / 10
    torch.testing.assert_close(z.grad, expected / len(q), atol=1e-8, rtol=1e-6)


def test_training_counts_the_label_with_the_larger_share(tiny):
    q = torch.tensor([[0.3, 0.7, 0.0], [0.6, 0.0, 0.4]])
    assert labels_of(q).tolist() == [1, 0]
    assert labels_of(torch.tensor([2, 1])).tolist() == [2, 1]
    run = Run.create(tiny(data_args=BOTH))
    prepare(run)
    meter = Meter(run)
    meter.add(torch.zeros(()), torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), q)
    assert meter.correct.item() == 1


@pytest.mark.parametrize("cut", [5, 11])
def test_resumed_run_mixes_as_the_uninterrupted_one(tiny, power_cut, cut):
    given = {"data_args": BOTH, "power_cut": True, "checkpoint_minutes": 0}
    given |= {"hooks": {"power_grad": {"alpha": 0.5}, "distill": {"alpha": 0.5, "beta": 0}}}
    whole = fit(Run.create(tiny(name="whole", **given)))
    power_cut.at = cut
    config = tiny(name="cut", **given)
    with pytest.raises(Killed):
        fit(Run.create(config))
    assert_same_run(whole, fit(Run.create(config)))


def test_an_auxiliary_head_learns_the_distributions():
    head, z = Auxiliary(weight=0.4), torch.tensor([[0.0, 1.0, 0.5], [2.0, 0.0, 1.0]])
    head.means = EpochMeans(["loss", "top1"], torch.device("cpu"))
    q = torch.tensor([[0.3, 0.7, 0.0], [0.4, 0.0, 0.6]])
    run = SimpleNamespace(model=SimpleNamespace(auxiliary_logits=z), criterion=F.cross_entropy, targets=q)
    torch.testing.assert_close(head.loss(run, torch.zeros(())), 0.4 * F.cross_entropy(z, q))
    assert head.means.recent[1].item() == pytest.approx(100)  # 50 % of two images


def test_what_cannot_mix_is_refused():
    with pytest.raises(UsageError, match="mixup"):
        Config.load({"dataset": "linear", "model": "dense_mlp", "data_args": {"mixup": 0.2}})
    with pytest.raises(UsageError, match="data_args.mixup=-1"):
        Config.load({"data_args": {"mixup": -1}})
    with pytest.raises(UsageError, match="data_args.cutmix=1: mixes the images of a step, and batch_size=1 has one"):
        check(Config.load({"data_args": {"cutmix": 1}, "batch_size": 1}))
    cached = {"hooks": {"distill": {"alpha": 0.5, "cache": True}}, "data_args": {"mixup": 0.2}}
    with pytest.raises(UsageError, match=r"distill.cache=true: .*data_args.mixup=0.2"):
        preflight(Config.load(cached))
