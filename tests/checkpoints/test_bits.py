import pytest
import torch
from gpu_cases import gpu

from research.checkpoints.bits import packed, to_bits, unpacked

SHAPES = [(0,), (1,), (7,), (8,), (9,), (3, 5), (2, 3, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_flags_come_back_from_an_eighth_of_the_bytes(shape):
    flags = torch.rand(shape) < 0.5
    if flags.ndim == 4:
        flags = flags.to(memory_format=torch.channels_last)
    stored = packed({"mask": flags})
    assert stored["mask"]["bits"].numel() == (flags.numel() + 7) // 8
    assert torch.equal(unpacked(stored)["mask"], flags)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_gpu_packs_the_same_bits_and_is_not_waited_for(shape):
    flags = torch.randint(0, 7, shape, dtype=torch.uint8) & 4
    with gpu() as on:
        there = flags.to("cuda:0")
        on.taken()
        stored = to_bits(there)
        assert on.taken() == []
        assert stored["bits"].device.type == "cuda"
        assert torch.equal(stored["bits"].cpu(), to_bits(flags)["bits"])
