"""The scripts that build and deploy: what they pass to ``sam``."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import build, deploy, layer_requirements


def interpreters(directory: Path, *versions: str) -> None:
    """Put such Pythons into a directory; one whose name ends in ``!`` is a shim for a version that is not installed."""
    directory.mkdir()
    for version in versions:
        program = directory / f"python{version.removesuffix('!')}"
        program.write_text(f"#!/bin/sh\nexit {int(version.endswith('!'))}\n")
        program.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(build, "TOOLS", tmp_path / "no-tools")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_the_newest_python_that_works_is_built_for(path: Path) -> None:
    interpreters(path, "3.9", "3.12", "3.13", "3.14!")

    assert build.newest_runtime() == "python3.13"


def test_it_is_said_when_no_python_is_one_of_lambdas(path: Path) -> None:
    interpreters(path, "3.9", "3.12!")

    with pytest.raises(build.BuildError, match="on the PATH"):
        build.newest_runtime()


def test_parameters_given_stand_over_those_of_the_environment() -> None:
    merged = deploy.parameters("prod", ["LogRetentionDays=30", "Organization=Example, Inc."])

    assert merged == {"Environment": "prod", "LogRetentionDays": "30", "Organization": "Example, Inc."}
    assert deploy.parameters("default", []) == {"Environment": "dev"}


def test_a_stack_name_that_is_too_long_for_what_is_named_after_it_is_refused_before_anything_is_built(
    tmp_path: Path,
) -> None:
    assert {deploy.stack_name(section) for section in deploy.ENVIRONMENTS.values()} == {"picomdm", "picomdm-dev"}

    configuration = tmp_path / "samconfig.toml"
    for length in (43, 44):
        configuration.write_text(f'[prod.global.parameters]\nstack_name = "{"x" * length}"\n')
        if length == deploy.LONGEST_STACK_NAME:
            deploy.stack_name("prod", configuration)
    with pytest.raises(ValueError, match="44 characters, and may have 43"):
        deploy.stack_name("prod", configuration)


def test_what_is_no_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        deploy.parameters("prod", ["Organization"])


def test_a_layer_whose_requirements_are_out_of_date_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_requirements, "REPOSITORY", tmp_path)
    monkeypatch.setattr(layer_requirements, "REQUIREMENTS", tmp_path / "requirements.txt")
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["h2>=4", "Boto3>=1"]\n')

    monkeypatch.setattr(sys, "argv", ["layer_requirements.py", "--check"])
    assert layer_requirements.main() == 1
    monkeypatch.setattr(sys, "argv", ["layer_requirements.py"])
    assert layer_requirements.main() == 0
    assert (tmp_path / "requirements.txt").read_text().splitlines()[1:] == ["Boto3>=1", "h2>=4"]
    monkeypatch.setattr(sys, "argv", ["layer_requirements.py", "--check"])
    assert layer_requirements.main() == 0


def test_make_lists_every_target_that_one_types() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=build.REPOSITORY, capture_output=True, text=True, check=True
    ).stdout

    names = {line.split()[1] for line in listed.splitlines()}
    assert {"help", "setup", "run", "demo", "test", "lint", "bench", "deploy"} <= names


def test_the_layer_keeps_the_descriptions_of_all_services_that_functions_use() -> None:
    clients = (build.REPOSITORY / "layers/mdmlib/python/mdmlib/runtime/clients.py").read_text()

    assert set(re.findall(r'\b_client\("([a-z0-9-]+)"', clients)) == build.SERVICES
