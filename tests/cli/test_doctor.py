"""The doctor reports every problem with its remedy, whatever the problem is, and says whether one can work."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from research.cli import doctor
from research.cli.doctor import Finding, examine


def only(monkeypatch, *checks):
    """Let the doctor make these checks and no others."""
    everything = ("packages", "torch_works", "devices", "machine", "ffcv_works", "data_found", "places")
    for name in everything:
        monkeypatch.setattr(doctor, name, lambda: iter(()))
    for name, check in zip(everything, checks, strict=False):
        monkeypatch.setattr(doctor, name, check)


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("absent", 0), ("warning", 0), ("broken", 1)])
def test_exit_code_is_1_only_when_something_is_broken(level, code, monkeypatch, capsys):
    only(monkeypatch, lambda: [Finding(level, "a thing", "mend it")])
    assert examine() == code
    assert f"{level:<8} a thing\n{'':<8} do: mend it\n" in capsys.readouterr().out


def test_a_check_that_raises_is_a_finding_and_the_rest_still_runs(monkeypatch, capsys):
    def crash():
        raise RuntimeError("operator torchvision::nms does not exist")

    only(monkeypatch, crash, lambda: [Finding("ok", "later check")])
    assert examine() == 1
    told = capsys.readouterr().out
    assert "torchvision::nms does not exist" in told and "do: make install" in told and "later check" in told


def test_packages_are_held_against_pyproject(monkeypatch):
    asked = ["numpy>=999", "no-such-package>=1", "pyyaml>=6", 'submitit>=1; extra == "slurm"']
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    found = {finding.text.split()[0]: finding for finding in doctor.packages()}
    assert found["numpy"].level == "broken" and ">=999" in found["numpy"].text and found["numpy"].remedy
    assert found["no-such-package"].level == "broken"
    assert found["pyyaml"].level == "ok" and "submitit" not in found


def test_every_embedded_data_set_is_found_and_a_missing_one_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RESEARCH_DATA", str(tmp_path))
    found = {finding.text.partition(":")[0]: finding for finding in doctor.data_found()}
    assert found["digits"].level == found["linear"].level == found["circle"].level == "ok"
    assert found["mnist"].level == "absent" and "download" in found["mnist"].text
    assert str(tmp_path) in found["data root"].text


def test_a_read_only_log_and_a_full_disk_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("research-log.md").touch(mode=0o444)
    monkeypatch.setattr(doctor, "LEAST_DISK", 1e9)
    levels = {finding.text.split()[0]: finding.level for finding in doctor.places()}
    assert levels["research-log.md"] == "warning" and "broken" in levels.values()
    assert [p.name for p in tmp_path.iterdir()] == ["research-log.md"]


def test_a_hanging_ffcv_is_given_up(monkeypatch):
    monkeypatch.setattr(doctor, "FFCV_SECONDS", 0.01)
    (finding,) = doctor.ffcv_works()
    assert finding.level == "warning" and "did not end" in finding.text and "loader=memory" in finding.remedy


def test_this_installation_is_usable_apart_from_ffcv(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "ffcv_works", lambda: [])
    assert examine() == 0, capsys.readouterr().out


@pytest.mark.slow
def test_this_installation_is_usable(tmp_path):
    done = subprocess.run([sys.executable, "-m", "research", "doctor"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FFCV writes and reads" in done.stdout or "ffcv is not installed" in done.stdout
    assert not list(tmp_path.iterdir())
