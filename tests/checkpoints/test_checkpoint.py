"""Checkpoints: whole or passed over, never lost to the next one."""

import hashlib
import os
import subprocess

import pytest
import torch

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


def test_a_checkpoint_named_by_the_older_digest_loads_and_its_damage_is_seen(tmp_path):
    new = checkpoint.save(tmp_path, 1, state(1))
    content = new.read_bytes()
    old = new.rename(tmp_path / f"000000001-{hashlib.blake2b(content, digest_size=16).hexdigest()}.pt")
    assert torch.equal(checkpoint.load_newest(tmp_path)["weight"], state(1)["weight"])
    old.write_bytes(content[:-1] + b"?")
    with pytest.raises(checkpoint.Damaged, match="does not match its digest"):
        checkpoint.read(old)


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
