"""What a network promises; every function is one promise of the network ``name``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from research.contracts.bench import Make, NotAsked, trained
from research.layers.cost import count
from research.models import MODELS, check_model, create_model, known_for

IMAGES = 4


def documents_itself(name: str, make: Make) -> None:
    """The function or class has a docstring, whose first line is listed."""
    assert MODELS[name].__doc__, "needs a docstring, whose first line `research models` lists"


def gives_logits_of_the_classes_asked_for(name: str, make: Make) -> None:
    """Inputs of its own shape become finite logits (N, classes), of any number of classes."""
    for classes in (known_for(name)[0], 7):
        model, x = built(name, classes)
        logits = model(x)
        assert logits.shape == (IMAGES, classes), f"{tuple(logits.shape)} for {IMAGES} images of {classes} classes"
        assert logits.isfinite().all(), "logits are not finite"


def learns_with_every_parameter(name: str, make: Make) -> None:
    """The loss has a finite gradient in every parameter, which is not zero everywhere."""
    model, x = built(name)
    nn.functional.cross_entropy(model(x), torch.arange(IMAGES) % known_for(name)[0]).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{key} has no part in the output"
        assert parameter.grad.isfinite().all(), f"the gradient of {key} is not finite"


def is_what_its_seed_says(name: str, make: Make) -> None:
    """It draws from torch's global generator alone: the same seed gives the same weights, another one others."""
    one, same, other = (built(name, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    for key, tensor in one.items():
        assert torch.equal(tensor, same[key]), f"{key} differs between two networks of one seed"
    assert any(not torch.equal(tensor, other[key]) for key, tensor in one.items()), "two seeds give one network"


def evaluates_alike_twice_and_from_its_state(name: str, make: Make) -> None:
    """In evaluation mode outputs repeat, and all that decides them is in ``state_dict``."""
    (one, x), (other, _) = built(name), built(name, seed=1)
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        first, again, loaded = (model.eval()(x) for model in (one, one, other))
    assert torch.equal(first, again), "outputs differ from pass to pass"
    assert torch.equal(first, loaded), "a network with the same state_dict gives other outputs"


def is_counted(name: str, make: Make) -> None:
    """``research count`` knows what each of its layers costs."""
    model, x = built(name)
    count(model, tuple(x.shape[1:]))


def trains(name: str, make: Make) -> None:
    """Two epochs on the digits end."""
    if reasons := check_model(name, {}, (1, 8, 8)):
        raise NotAsked(f"does not take the digits: {reasons[0]}")
    assert trained(make(model=name, batch_size=256, name="trains")).status["status"] == "finished"


def built(name: str, classes: int | None = None, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """The network with this seed, and random inputs (N, …) of its own shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_model(name, classes)
        return model, torch.randn(IMAGES, *known_for(name)[1])


PROMISES = (
    documents_itself,
    gives_logits_of_the_classes_asked_for,
    learns_with_every_parameter,
    is_what_its_seed_says,
    evaluates_alike_twice_and_from_its_state,
    is_counted,
    trains,
)
