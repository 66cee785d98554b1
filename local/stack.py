"""The whole stack on this machine: ``template.yaml``, built and deployed as to AWS, and Apple's services beside it.

What a :class:`Stack` consists of is started and stopped here. Whoever starts one brings the devices, the administrator
and the customer.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from local.ade.client import AdeSimulator
from local.administrator import Keys
from local.apns.process import ApnsSimulator
from local.edge import DeviceEdge
from local.emulator import REGION, VIRTUAL_ENVIRONMENT, Emulator
from tools.build import BUILD, TOOLS, Target, build, exclusive, sam_environment

STACK_NAME: Final = "picomdm"

_ARTIFACTS: Final = "picomdm-artifacts"
_ADMINISTRATOR: Final = "administrator"


class DeployError(Exception):
    """``sam deploy`` failed."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the parts listen; 0: wherever there is room."""

    emulator: int = 0
    edge: int = 0
    apns: int = 0
    apns_control: int = 0
    ade: int = 0
    ade_control: int = 0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A deployment that runs on this machine."""

    directory: Path
    """Logs of all parts, and what they keep."""
    name: str
    outputs: Mapping[str, str]
    """Of the template."""
    device_url: str
    admin_url: str
    administrator: Keys
    """Of an IAM user who may use the admin API, and nothing else."""
    trust_anchor: Path
    """PEM; whom devices have to trust for :attr:`device_url`."""
    emulator: Emulator
    apns: ApnsSimulator
    ade: AdeSimulator
    _parts: ExitStack = field(repr=False)

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        keep_state: bool = False,
        parameters: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda _step: None,
    ) -> Self:
        """Start everything and deploy; ``report`` is told each step, in a few words.

        With ``keep_state`` a later start in the same ``directory`` finds all of it again, at the same addresses, for
        enrolled devices know theirs. ``parameters`` are the template's.

        Raises what its parts raise: ``OSError`` for a port that is taken, ``EmulatorError``, ``ApnsSimulatorError``,
        ``BuildError``, :class:`DeployError`.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        memory = directory / "ports.json"
        ports = Ports(**json.loads(memory.read_text())) if keep_state and memory.exists() else Ports()
        with ExitStack() as parts:
            report("Starting the push service")
            apns = ApnsSimulator.start(directory / "apns", port=ports.apns, control_port=ports.apns_control)
            parts.callback(apns.stop)
            report("Starting the device enrollment service")
            ade = AdeSimulator.start(
                directory / "ade", port=ports.ade, control_port=ports.ade_control, keep_state=keep_state
            )
            parts.callback(ade.stop)
            report("Starting AWS")
            emulator = Emulator.start(directory / "aws", port=ports.emulator or None, keep_state=keep_state)
            parts.callback(emulator.stop)
            edge = DeviceEdge(directory / "tls", port=ports.edge)
            parts.callback(edge.stop)
            if keep_state:
                used = Ports(
                    emulator=emulator.port,
                    edge=edge.port,
                    apns=_port(apns.url),
                    apns_control=_port(apns.control_url),
                    ade=_port(ade.url),
                    ade_control=_port(ade.control_url),
                )
                memory.write_text(json.dumps(asdict(used)))
            outputs = deploy(
                emulator,
                parameters={
                    "DeviceUrl": edge.url,
                    "ApnsUrl": apns.url,
                    "ApnsTrustAnchor": apns.trust_anchor,
                    "AdeUrl": ade.url,
                    # The emulator's CloudFormation knows no archives.
                    "ArchiveDays": "0",
                    **(parameters or {}),
                },
                directory=directory,
                report=report,
            )
            edge.lead_to(emulator.url, outputs["DeviceApiId"])
            return cls(
                directory=directory,
                name=STACK_NAME,
                outputs=outputs,
                device_url=edge.url,
                admin_url=f"{emulator.url}/_aws/execute-api/{outputs['AdminApiId']}",
                administrator=_administrator(emulator, outputs["AdministratorPolicyArn"], directory),
                trust_anchor=edge.trust_anchor,
                emulator=emulator,
                apns=apns,
                ade=ade,
                _parts=parts.pop_all(),
            )

    def logs(self) -> dict[str, str]:
        """Return what the functions have logged until now, by the function's short name (``connect``)."""
        prefix = f"/picomdm/{self.name}/"
        logs = self.emulator.logs
        found: dict[str, str] = {}
        for group in logs.describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]:
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
            messages = [event["message"].rstrip("\n") for page in pages for event in page["events"]]
            found[group["logGroupName"].removeprefix(prefix)] = "\n".join(messages)
        return found

    def stop(self) -> None:
        """Stop everything that was started, in the opposite order. Safe to repeat."""
        self._parts.close()


def deploy(
    emulator: Emulator,
    *,
    parameters: Mapping[str, str],
    directory: Path,
    report: Callable[[str], None] = lambda _step: None,
) -> dict[str, str]:
    """Build the template for the emulator and deploy it there; return its outputs.

    Raises ``BuildError`` and :class:`DeployError`.
    """
    architecture = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
    target = Target(runtime=_emulated_runtime(), architecture=architecture)
    values = {**target.parameters, **parameters}
    with exclusive():
        report("Building the functions and their layer")
        template = build(target)
        report("Deploying the template")
        noted = _with_parameters_noted(template, values)
        try:
            _sam_deploy(emulator, noted, values, directory)
        finally:
            noted.unlink()
    described = emulator.cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    _do_what_the_emulator_does_not(emulator, outputs)
    return outputs


def _sam_deploy(emulator: Emulator, template: Path, parameters: Mapping[str, str], directory: Path) -> None:
    values = directory / "parameters.yaml"
    values.write_text(json.dumps(parameters))
    values.chmod(0o600)
    # In place of samconfig.toml, which is for AWS.
    configuration = directory / "samconfig.toml"
    configuration.write_text("version = 0.1\n")
    if _ARTIFACTS not in {bucket["Name"] for bucket in emulator.s3.list_buckets()["Buckets"]}:
        emulator.s3.create_bucket(Bucket=_ARTIFACTS)
    environment = {name: value for name, value in sam_environment().items() if not name.startswith("AWS_")}
    run = subprocess.run(
        [
            *(TOOLS / "sam", "deploy", "--template-file", template, "--config-file", configuration),
            *("--stack-name", STACK_NAME, "--region", REGION, "--s3-bucket", _ARTIFACTS),
            *("--capabilities", "CAPABILITY_IAM", "--parameter-overrides", values.as_uri()),
            *("--no-confirm-changeset", "--no-fail-on-empty-changeset", "--no-progressbar"),
        ],
        cwd=directory,
        env=environment | emulator.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    log = directory / "deploy.log"
    log.write_text(run.stdout + run.stderr)
    if run.returncode:
        failed = [line for line in run.stdout.splitlines() if "FAILED" in line]
        raise DeployError("\n".join(["sam deploy failed:", *failed, run.stderr.strip(), f"All of it is in {log}."]))


def _with_parameters_noted(template: Path, parameters: Mapping[str, str]) -> Path:
    """Return a copy of the template that differs when the parameters do.

    The emulator takes a deployment that changes nothing but parameters for one that changes nothing.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    # Beside the original: its paths are relative. As text, so that no YAML library has to know CloudFormation's tags.
    noted = BUILD / f"template-{os.getpid()}.yaml"
    noted.write_text(template.read_text().replace("\nMetadata:\n", f"\nMetadata:\n  Parameters: {digest}\n", 1))
    return noted


def _do_what_the_emulator_does_not(emulator: Emulator, outputs: Mapping[str, str]) -> None:
    for table in (outputs["EnrollmentTableName"], outputs["ResourceTableName"]):
        described = emulator.dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
        if described.get("TimeToLiveStatus") != "ENABLED":
            emulator.dynamodb.update_time_to_live(
                TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
            )
    # The bucket refuses whoever does not come over TLS, which nobody does here.
    emulator.s3.delete_bucket_policy(Bucket=outputs["PayloadBucketName"])
    # A parameter's number stays text there, which its poller of queues cannot compare.
    for source in emulator.lambda_.list_event_source_mappings()["EventSourceMappings"]:
        if scaling := source.get("ScalingConfig"):
            emulator.lambda_.update_event_source_mapping(
                UUID=source["UUID"], ScalingConfig={"MaximumConcurrency": int(scaling["MaximumConcurrency"])}
            )


def _administrator(emulator: Emulator, policy_arn: str, directory: Path) -> Keys:
    """Return the keys of the administrator, an IAM user with the template's policy, who is made once."""
    memory = directory / "administrator.json"
    users = {user["UserName"] for user in emulator.iam.list_users()["Users"]}
    if _ADMINISTRATOR not in users:
        emulator.iam.create_user(UserName=_ADMINISTRATOR)
        memory.unlink(missing_ok=True)
    emulator.iam.attach_user_policy(UserName=_ADMINISTRATOR, PolicyArn=policy_arn)
    if not memory.exists():
        key = emulator.iam.create_access_key(UserName=_ADMINISTRATOR)["AccessKey"]
        memory.touch(mode=0o600)
        memory.write_text(json.dumps({"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}))
    return Keys(**json.loads(memory.read_text()), region=REGION)


def _emulated_runtime() -> str:
    """Return the runtime to build for: functions run in the emulator's own interpreter, whatever theirs is."""
    for line in (VIRTUAL_ENVIRONMENT / "pyvenv.cfg").read_text().splitlines():
        name, _, value = line.partition(" = ")
        if name == "version":
            major, minor = value.split(".")[:2]
            return f"python{major}.{minor}"
    raise DeployError(f"{VIRTUAL_ENVIRONMENT} does not say which Python it has: remove it, and run `make setup`.")


def _port(url: str) -> int:
    return urlsplit(url).port or 0
