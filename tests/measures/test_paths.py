"""Which units of a masked MLP lie on a path from an input to an output, and how many paths there are."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from research.measures.paths import living, paths

FIRST = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1]]).bool()  # four units, of which the third has no input
LAST = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 0]]).bool()  # two outputs; nothing reads the fourth unit


def test_a_unit_lives_if_it_is_fed_and_read():
    hidden, outputs = living([FIRST, LAST])
    assert hidden.tolist() == [True, True, False, False]
    assert outputs.tolist() == [True, False]  # the second output reads a unit that nothing feeds


def test_paths_are_products_of_masks():
    assert paths([FIRST, LAST]).tolist() == [3.0, 0.0]


def test_inputs_that_are_always_0_feed_nothing():
    seen = torch.tensor([False, False, True])
    assert living([FIRST, LAST], seen)[0].tolist() == [False, True, False, False]
    assert paths([FIRST, LAST], seen).tolist() == [1.0, 0.0]


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6))
def test_units_live_exactly_if_a_path_leads_through_them(seed, density):
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(shape, generator=generator) < density for shape in ((5, 6), (4, 5), (3, 4))]
    for layer, alive in enumerate(living(masks)):
        for unit, lives in enumerate(alive.tolist()):
            only = [mask.clone() for mask in masks]  # every path has to go through this unit
            only[layer][torch.arange(len(only[layer])) != unit] = False
            assert lives == bool(paths(only).sum() > 0)
