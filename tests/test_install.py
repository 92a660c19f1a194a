"""What a fresh machine relies on: pins that fit their ranges, the conda environment, the installer's words, CI."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = REPOSITORY
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS = PYPROJECT["optional-dependencies"]
REQUIREMENTS = [*PYPROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]


def pins() -> dict[str, Version]:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    split = [line.split("==") for line in lines if not line.startswith("#")]
    return {name: Version(version) for name, version in split}


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_every_dependency_is_pinned_within_its_range(line):
    requirement = Requirement(line)
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])
    assert {spec.operator for spec in requirement.specifier} == {">=", "<"}


def test_pins_are_public_versions_and_nothing_else():
    assert all(version.local is None for version in pins().values())
    names = [line.split("==")[0] for line in (PROJECT / "constraints.txt").read_text().splitlines() if "==" in line]
    assert len(names) == len(set(names)) and all(name == canonicalize_name(name) for name in names)


def test_conda_environment_has_what_ffcv_is_compiled_with_and_installs_this_project_pinned():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    assert environment["channels"][0] == "conda-forge" and environment["name"] == "research"
    *conda, pip = environment["dependencies"]
    assert {"python=3.11", "compilers", "pkg-config", "libopencv", "libjpeg-turbo", "pip", "make"} <= set(conda)
    assert pip == {"pip": ["--constraint constraints.txt", "-e .[dev]"]}


def test_opencv_description_leads_to_headers_that_exist():
    folder = PROJECT / ".ci" / "ffcv"
    text = (folder / "opencv4.pc").read_text().replace("${pcfiledir}", str(folder))
    assert re.search(r"^Libs: -lopencv_imgproc -lopencv_core$", text, re.M)
    own = Path(re.search(r"^Cflags: -I(\S+)", text, re.M)[1])
    assert re.findall(r"#include <(.*)>", (own / "opencv2/opencv.hpp").read_text()) == [
        "opencv2/core.hpp",
        "opencv2/imgproc.hpp",
    ]


def test_ci_runs_the_test_command_of_the_readme():
    script = PROJECT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]
    assert re.search(r"^make test\b", (PROJECT / "README.md").read_text(), re.M)


def test_test_command_runs_pytest_on_everything():
    command = ["make", "-n", "--no-print-directory", "test", "INSTALLED="]
    # `make test` runs this test too, with variables of its own
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "WORKERS"))}
    planned = subprocess.run(command, cwd=PROJECT, env=outside, capture_output=True, text=True)
    assert planned.stdout.strip() == "python -m pytest -n 2 --dist loadfile"


def install(tmp_path, path: str, **environment) -> subprocess.CompletedProcess:
    """Run the installer with ``path`` as PATH; it must stop before it makes anything."""
    bash = "/bin/bash"
    command = [bash, str(PROJECT / ".ci" / "install"), str(tmp_path / "venv")]
    done = subprocess.run(command, env={"PATH": path, **environment}, capture_output=True, text=True)
    assert done.returncode and not (tmp_path / "venv").exists()
    return done


def test_installer_without_a_python_says_so(tmp_path):
    done = install(tmp_path, os.environ["PATH"], PYTHON="/no/such/python")
    assert "no Python >= 3.11" in done.stderr and "/no/such/python" in done.stderr


def test_installer_without_administrator_names_packages_and_ways_out(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {"id": "echo 1000", "dirname": 'exec /usr/bin/dirname "$@"'}.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    done = install(tmp_path, str(tools), PYTHON=sys.executable)
    for part in ("g++", "pkg-config", "libturbojpeg0-dev", "environment.yml", "FFCV=no", "apt-get install"):
        assert part in done.stderr
