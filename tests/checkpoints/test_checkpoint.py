"""Checkpoints: whole or passed over, never lost to the next one."""

import hashlib
import os
import subprocess

import pytest
import torch
from torch import nn

from research.checkpoints import checkpoint
from research.errors import UsageError


def state(number: float) -> dict:
    return {"step": int(number), "weight": torch.full((1000,), number)}


def test_newest_is_loaded_and_only_two_are_kept(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path / "checkpoint", step, state(step))
    assert checkpoint.load_newest(tmp_path / "checkpoint")["step"] == 10
    assert len(list((tmp_path / "checkpoint").iterdir())) == 2


def test_without_any_there_is_none(tmp_path):
    assert checkpoint.load_newest(tmp_path / "nothing") is None


@pytest.mark.parametrize("damage", ["truncate", "flip one bit", "empty"])
def test_damaged_newest_is_passed_over_with_a_warning(tmp_path, damage):
    checkpoint.save(tmp_path, 1, state(1))
    newest = checkpoint.save(tmp_path, 2, state(2))
    content = bytearray(newest.read_bytes())
    if damage == "flip one bit":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"truncate": content[: len(content) // 2], "empty": b""}.get(damage, content))
    with pytest.warns(UserWarning, match="is damaged .* using the one before"):
        assert checkpoint.load_newest(tmp_path)["step"] == 1


def test_wherever_a_bit_is_flipped_the_state_is_what_was_saved_or_the_file_is_damaged(tmp_path):
    saved = {"step": 1, "weight": torch.arange(40.0), "mask": torch.arange(40) % 3 == 0, "word": "as written"}
    path = checkpoint.save(tmp_path, 1, saved)
    content, found = path.read_bytes(), []
    listing = content.index(b"PK\1\2")
    for place in [*range(0, listing, 7), *range(listing, len(content))]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            state = checkpoint.read(path)
        except checkpoint.Damaged:
            found.append(place)
        else:
            assert state["word"] == "as written" and all(torch.equal(state[n], saved[n]) for n in ("weight", "mask"))
    assert len([place for place in found if place < listing]) > listing / 7 / 3  # the others are between the parts


@pytest.mark.parametrize("digest", [lambda b: hashlib.blake2b(b, digest_size=16), hashlib.sha256])
def test_a_checkpoint_named_by_an_older_digest_loads_and_its_damage_is_seen(tmp_path, digest):
    new = checkpoint.save(tmp_path, 1, state(1))
    content = new.read_bytes()
    old = new.rename(tmp_path / f"000000001-{digest(content).hexdigest()}.pt")
    assert torch.equal(checkpoint.load_newest(tmp_path)["weight"], state(1)["weight"])
    old.write_bytes(content[:-1] + b"?")
    with pytest.raises(checkpoint.Damaged, match="does not match its digest"):
        checkpoint.read(old)


def test_booleans_take_a_bit_and_come_back(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network.register_buffer("mask", torch.rand(7, 11, 13) > 0.5)
    network.register_buffer("kernels", (torch.rand(3, 4, 5, 5) > 0.5).to(memory_format=torch.channels_last))
    saved = {"step": 1, "model": network.state_dict(), "few": [torch.tensor(True), torch.zeros(0, 3).bool()]}
    large = {"step": 1, "flags": torch.ones(10**6).bool()}
    assert checkpoint.save(tmp_path / "large", 1, large).stat().st_size < 10**6 / 7
    read = checkpoint.read(checkpoint.save(tmp_path, 1, saved))
    assert read["model"]._metadata == saved["model"]._metadata and read["model"].keys() == saved["model"].keys()
    pairs = zip([*saved["model"].values(), *saved["few"]], [*read["model"].values(), *read["few"]], strict=True)
    for own, other in pairs:
        assert own.dtype == other.dtype and torch.equal(own, other) and own.stride() == other.stride()
    assert saved["model"]["mask"].dtype == torch.bool


def test_half_written_file_is_not_a_checkpoint(tmp_path):
    checkpoint.save(tmp_path, 1, state(1))
    (tmp_path / ".000000002.part").write_bytes(b"half")
    assert checkpoint.load_newest(tmp_path)["step"] == 1


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'evil'}",)

    checkpoint.save(tmp_path, 1, state(1))
    checkpoint.save(tmp_path, 2, {"weight": Evil()})
    with pytest.warns(UserWarning, match="is damaged"):
        assert checkpoint.load_newest(tmp_path)["step"] == 1
    assert not (tmp_path / "evil").exists()


def test_full_disk_keeps_the_previous_checkpoint(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mount.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        checkpoint.save(disk / "checkpoint", 1, state(1))
        with pytest.raises(
            UsageError, match=r"cannot write checkpoint of step 2 .*No space left.* 000000001-.* is intact"
        ):
            checkpoint.save(disk / "checkpoint", 2, {"weight": torch.rand(100_000)})
        assert checkpoint.load_newest(disk / "checkpoint")["step"] == 1
        assert len(list((disk / "checkpoint").iterdir())) == 1
    finally:
        subprocess.run(["umount", disk], check=True)
