"""The template as a whole: its parameters, its outputs, and what stands beside it."""

import re
import shlex
import tomllib
from typing import Any

import pytest

from tests.template.document import REPOSITORY, Template
from tools import layer_requirements

PROMISED_OUTPUTS = {
    "AdminUrl",
    "DeviceUrl",
    "DeviceApiId",
    "AdminApiId",
    "EnrollmentTableName",
    "ResourceTableName",
    "PayloadBucketName",
    "EventBusName",
    "SecretArn",
    "PushQueueUrl",
    "PushDeadLetterQueueUrl",
    "WebhookQueueUrl",
    "WebhookDeadLetterQueueUrl",
    "SweepQueueUrl",
    "SweepDeadLetterQueueUrl",
    "WorkflowQueueUrl",
    "WorkflowDeadLetterQueueUrl",
    "EventFallbackQueueUrl",
    "EventFallbackDeadLetterQueueUrl",
    "TargetDeadLetterQueueUrl",
    "DashboardName",
    "AdministratorPolicyArn",
}
"""The command line and the tests look for these."""


def references(value: Any) -> set[str]:
    """Return everything that a part of the template refers to."""
    if isinstance(value, list):
        return set().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*map(references, value.values()))
    if "Ref" in value:
        found.add(value["Ref"])
    if "Fn::GetAtt" in value:
        found.add(value["Fn::GetAtt"][0])
    if "Fn::Sub" in value:
        text = value["Fn::Sub"] if isinstance(value["Fn::Sub"], str) else value["Fn::Sub"][0]
        found |= {name.split(".")[0] for name in re.findall(r"\$\{([\w:.]+)\}", text)}
    return found


def test_every_parameter_says_what_it_is_and_is_safe_to_leave_alone(template: Template) -> None:
    for name, parameter in template.parameters.items():
        assert parameter["Description"].endswith("."), name
        assert "Default" in parameter, name


def test_every_parameter_is_used_and_shown_in_a_group(template: Template) -> None:
    used = references(template.document)
    groups = template.document["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]

    assert set(template.parameters) <= used
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(template.parameters)


def test_nothing_refers_to_what_is_not_there(template: Template) -> None:
    known = {*template.parameters, *template.resources}

    assert {name for name in references(template.document) if not name.startswith("AWS::")} <= known


def test_the_outputs_are_those_that_others_look_for(template: Template) -> None:
    assert set(template.outputs) >= PROMISED_OUTPUTS


@pytest.mark.parametrize("environment", ["default", "prod"])
def test_samconfig_deploys_with_parameters_that_exist(template: Template, environment: str) -> None:
    configuration = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())[environment]
    overrides = dict(
        override.split("=", 1) for override in shlex.split(configuration["deploy"]["parameters"]["parameter_overrides"])
    )

    assert overrides.keys() <= template.parameters.keys()
    assert overrides["Environment"] == {"default": "dev", "prod": "prod"}[environment]
    assert configuration["deploy"]["parameters"]["capabilities"] == "CAPABILITY_IAM"


def test_the_layer_requires_what_the_project_depends_on() -> None:
    assert layer_requirements.REQUIREMENTS.read_text() == layer_requirements.requirements()
