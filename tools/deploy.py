"""Deploys to AWS: ``sam deploy`` with what samconfig.toml says of an environment, and with parameters given here.

Usage: ``python tools/deploy.py --environment dev|prod [NAME=VALUE …]``. Builds before, for the newest Python at hand;
``PythonRuntime=…`` or ``Architecture=…`` among the parameters choose otherwise. AWS credentials and region are found
as by any of AWS's tools.
"""

import argparse
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from tools.build import BUILD, REPOSITORY, TOOLS, BuildError, Target, build, exclusive, newest_runtime, sam_environment

CONFIGURATION: Final = REPOSITORY / "samconfig.toml"
ENVIRONMENTS: Final = {"dev": "default", "prod": "prod"}
"""An environment's name for people, and samconfig.toml's."""

LONGEST_STACK_NAME: Final = 43
_PARAMETER: Final = re.compile(r"[A-Za-z0-9]+=.*", re.DOTALL)


def parameters(section: str, given: list[str]) -> dict[str, str]:
    """Return the template's parameters: of the environment, and over them those given.

    ``sam deploy`` would take either the ones or the others. Raises ``ValueError`` for what is no ``NAME=VALUE``.
    """
    configured = tomllib.loads(CONFIGURATION.read_text())[section]["deploy"]["parameters"]["parameter_overrides"]
    for parameter in given:
        if not _PARAMETER.fullmatch(parameter):
            raise ValueError(f"{parameter!r} is no parameter: write NAME=VALUE.")
    return dict(parameter.split("=", 1) for parameter in [*shlex.split(configured), *given])


def stack_name(section: str, configuration: Path = CONFIGURATION) -> str:
    """Return the name of an environment's stack. Raises ``ValueError`` for one that is too long."""
    name = str(tomllib.loads(configuration.read_text())[section]["global"]["parameters"]["stack_name"])
    if len(name) > LONGEST_STACK_NAME:
        raise ValueError(
            f"The stack name {name!r} has {len(name)} characters, and may have {LONGEST_STACK_NAME}: rules of webhooks "
            f"have it and 21 characters more for a name, and EventBridge takes 64. Shorten it in {configuration.name}."
        )
    return name


def deploy(section: str, values: dict[str, str]) -> int:
    """Build, then deploy; return the exit status of ``sam deploy``. Raises ``BuildError``."""
    target = Target(
        runtime=values.get("PythonRuntime") or newest_runtime(), architecture=values.get("Architecture", "arm64")
    )
    with exclusive():
        template = build(target)
        print(f"Built for {target.runtime} on {target.architecture}.")
        overrides = [f"{name}={shlex.quote(value)}" for name, value in (values | target.parameters).items()]
        return subprocess.run(
            [
                *(TOOLS / "sam", "deploy", "--template-file", template),
                *("--config-file", CONFIGURATION, "--config-env", section),
                *("--parameter-overrides", *overrides),
            ],
            cwd=BUILD.parent,
            env=sam_environment(),
            check=False,
        ).returncode


def main() -> int:
    """Deploy what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--environment", choices=ENVIRONMENTS, default="dev", help="of samconfig.toml")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="parameters of template.yaml")
    arguments = parser.parse_args()
    section = ENVIRONMENTS[arguments.environment]
    try:
        stack_name(section)
        return deploy(section, parameters(section, arguments.parameters))
    except (BuildError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
