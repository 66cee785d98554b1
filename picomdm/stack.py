"""``picomdm destroy``: the end of a deployment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from botocore.exceptions import ClientError

from picomdm.context import JSON, Operator, operator_of
from picomdm.deployment import refused_by_aws
from picomdm.errors import RefusedError, SetupError
from picomdm.events import tail_prefix

_POLL_SECONDS: Final = 2.0
_DELETED: Final = "DELETE_COMPLETE"
_FAILED: Final = "DELETE_FAILED"
_GONE: Final = frozenset({"NoSuchBucket", "ResourceNotFoundException"})


def destroy(
    context: typer.Context,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    with_secret: Annotated[
        bool,
        typer.Option("--with-secret", help="Delete the master keys too: then no backup can ever be read again."),
    ] = False,
    _json: JSON = False,
) -> None:
    """Delete a deployment with all that it knows. Devices stay enrolled, with a server that is gone."""
    operator = operator_of(context)
    terminal = operator.terminal
    deployment = operator.deployment
    bus, bucket = deployment.output("EventBusName"), deployment.output("PayloadBucketName")
    stack_id, secret = deployment.description["StackId"], deployment.output("SecretArn")
    try:
        _refuse_protected(operator)
        _refuse_rules_of_others(operator)
        if not yes:
            _ask(operator)
        with terminal.progress(f"Deleting {deployment.stack} …") as tell:
            rules = _delete_rules(deployment.client("events"), bus, deployment.stack, tell)
            _delete_queues_of_tails(deployment.client("sqs"), deployment.stack)
            objects = _empty_bucket(deployment.client("s3"), bucket, tell)
            _delete_stack(deployment.client("cloudformation"), stack_id, tell)
            if with_secret:
                deployment.client("secretsmanager").delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
    except ClientError as error:
        raise refused_by_aws(error) from error

    def show() -> None:
        terminal.say(f"{deployment.stack} is gone, with {rules} rules of webhooks and {objects} objects.")
        if not with_secret:
            terminal.note(f"[dim]Kept, for backups are sealed under its keys: the secret {secret}[/dim]")

    document = {"stack": deployment.stack, "rules": rules, "objects": objects, "secret_kept": not with_secret}
    terminal.answer(document, show)


def _refuse_protected(operator: Operator) -> None:
    """Refuse before anything is deleted: half a deployment serves nobody."""
    deployment = operator.deployment
    if deployment.description.get("EnableTerminationProtection"):
        raise RefusedError(
            f"The stack {deployment.stack} is protected from deletion; first: aws cloudformation "
            f"update-termination-protection --no-enable-termination-protection --stack-name {deployment.stack}",
            code="stack_protected",
        )
    dynamodb = deployment.client("dynamodb")
    for output in ("EnrollmentTableName", "ResourceTableName"):
        table = deployment.output(output)
        protected = False
        with _gone_already():
            protected = dynamodb.describe_table(TableName=table)["Table"].get("DeletionProtectionEnabled")
        if protected:
            raise RefusedError(
                f"The table {table} is protected from deletion; first: aws dynamodb update-table "
                f"--no-deletion-protection-enabled --table-name {table}",
                code="table_protected",
            )


def _ask(operator: Operator) -> None:
    deployment, terminal = operator.deployment, operator.terminal
    terminal.note(
        f"This deletes the stack [bold]{deployment.stack}[/bold] in {deployment.region}: all enrollments, commands, "
        "results and certificates. Devices that are enrolled cannot be reached any more."
    )
    try:
        typed = typer.prompt("Type the stack's name to go on", err=True)
    except typer.Abort:
        raise SetupError("Nobody answers; say --yes.", code="not_confirmed") from None
    if typed != deployment.stack:
        raise SetupError("That is not its name; nothing was deleted.", code="not_confirmed")


@contextmanager
def _gone_already() -> Iterator[None]:
    """Let pass that something is not there: an earlier attempt may have come as far as this."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] not in _GONE:
            raise


def _rules(events: Any, bus: str) -> list[dict[str, Any]]:  # noqa: ANN401 - a client of botocore
    """Return the rules on the bus, but those that AWS keeps itself for an archive."""
    found: list[dict[str, Any]] = []
    with _gone_already():
        for page in _pages(events.list_rules, EventBusName=bus):
            found += [rule for rule in page["Rules"] if not rule.get("ManagedBy")]
    return found


def _is_ours(rule: str, stack: str) -> bool:
    """Whether a rule was made by the deployment, or by a `picomdm events tail` that was killed."""
    return rule.startswith((f"{stack}-webhook-", tail_prefix(stack)))


def _refuse_rules_of_others(operator: Operator) -> None:
    """Refuse while somebody else's rules are on the bus: CloudFormation would fail on it, when all else is gone."""
    deployment = operator.deployment
    bus = deployment.output("EventBusName")
    rules = _rules(deployment.client("events"), bus)
    foreign = [rule["Name"] for rule in rules if not _is_ours(rule["Name"], deployment.stack)]
    if foreign:
        raise RefusedError(
            f"There are rules on the event bus {bus} that PicoMDM did not make: {', '.join(sorted(foreign)[:10])}. "
            "Delete them where they were made; the bus cannot be deleted before.",
            code="rules_of_others",
        )


def _delete_rules(
    events: Any,  # noqa: ANN401 - a client of botocore
    bus: str,
    stack: str,
    tell: Callable[[str], None],
) -> int:
    """Delete the rules that were made while the deployment ran: CloudFormation cannot delete a bus that has any."""
    # The template's own are CloudFormation's to delete.
    templates = {f"{stack}-webhook-default", f"{stack}-webhook-test"}
    names = [rule["Name"] for rule in _rules(events, bus) if _is_ours(rule["Name"], stack)]
    names = [name for name in names if name not in templates]
    for name in names:
        tell(f"Deleting the rule {name} …")
        targets = [
            target["Id"]
            for page in _pages(events.list_targets_by_rule, EventBusName=bus, Rule=name)
            for target in page["Targets"]
        ]
        if targets:
            events.remove_targets(EventBusName=bus, Rule=name, Ids=targets)
        events.delete_rule(EventBusName=bus, Name=name)
    return len(names)


def _delete_queues_of_tails(sqs: Any, stack: str) -> None:  # noqa: ANN401 - a client of botocore
    for page in _pages(sqs.list_queues, QueueNamePrefix=tail_prefix(stack)):
        for url in page.get("QueueUrls", ()):
            sqs.delete_queue(QueueUrl=url)


def _pages(call: Callable[..., dict[str, Any]], **arguments: str) -> Iterator[dict[str, Any]]:
    while True:
        page = call(**arguments)
        yield page
        if not page.get("NextToken"):
            return
        arguments["NextToken"] = page["NextToken"]


def _empty_bucket(s3: Any, bucket: str, tell: Callable[[str], None]) -> int:  # noqa: ANN401 - a client of botocore
    """Delete all objects with all their versions: CloudFormation deletes no bucket that holds anything."""
    deleted = 0
    with _gone_already():
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            found = [
                {"Key": entry["Key"], "VersionId": entry["VersionId"]}
                for entry in page.get("Versions", []) + page.get("DeleteMarkers", [])
            ]
            if not found:
                continue
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True})
            if errors := answer.get("Errors"):
                raise RefusedError(f"S3 does not delete {len(errors)} objects: {errors[0].get('Message')}")
            deleted += len(found)
            tell(f"Deleted {deleted} objects …")
    return deleted


def _delete_stack(cloudformation: Any, stack_id: str, tell: Callable[[str], None]) -> None:  # noqa: ANN401 - a client
    cloudformation.delete_stack(StackName=stack_id)
    while True:
        # By its id, a stack is found when it is gone too.
        stack = cloudformation.describe_stacks(StackName=stack_id)["Stacks"][0]
        if stack["StackStatus"] == _DELETED:
            return
        if stack["StackStatus"] == _FAILED:
            raise RefusedError(
                f"CloudFormation could not delete the stack: {stack.get('StackStatusReason', 'see its events')}",
                code="delete_failed",
            )
        resources = cloudformation.describe_stack_resources(StackName=stack_id)["StackResources"]
        gone = sum(resource["ResourceStatus"] == _DELETED for resource in resources)
        tell(f"Deleting the stack: {gone} of {len(resources)} resources …")
        time.sleep(_POLL_SECONDS)
