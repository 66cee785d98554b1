"""What AWS itself says of a deployment's account: how much it may have, what rings, and who may look."""

from collections.abc import Callable
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from picomdm.deployment import Deployment, refused_by_aws
from picomdm.errors import SetupError

_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "403"})


def concurrency(deployment: Deployment) -> tuple[int, int]:
    """Return how many invocations the account may have at a time, and how many of them nobody has reserved."""
    limit = _ask(deployment.client("lambda").get_account_settings)["AccountLimit"]
    return int(limit["ConcurrentExecutions"]), int(limit["UnreservedConcurrentExecutions"])


def rules_on_bus(deployment: Deployment) -> int:
    """Return how many rules there are on the stack's event bus."""
    list_rules = deployment.client("events").list_rules
    asked = {"EventBusName": deployment.output("EventBusName")}
    count, token = 0, None
    while True:
        page = _ask(list_rules, **asked, **({"NextToken": token} if token else {}))
        count += len(page["Rules"])
        if (token := page.get("NextToken")) is None:
            return count


def alarms_in_alarm(deployment: Deployment) -> list[str]:
    """Return the names of the stack's alarms that ring."""
    told = _ask(
        deployment.client("cloudwatch").describe_alarms,
        AlarmNamePrefix=f"{deployment.stack}-",
        StateValue="ALARM",
        AlarmTypes=["MetricAlarm", "CompositeAlarm"],
    )
    return [alarm["AlarmName"] for kind in ("MetricAlarms", "CompositeAlarms") for alarm in told.get(kind, ())]


def may_do(deployment: Deployment) -> dict[str, bool]:
    """Say for commands that ask AWS themselves whether their user may: by a harmless call of the same service."""
    output = deployment.output
    calls: dict[str, Callable[[], object]] = {
        "queues, redrive": lambda: deployment.client("sqs").get_queue_attributes(
            QueueUrl=output("PushDeadLetterQueueUrl"), AttributeNames=["QueueArn"]
        ),
        "events tail": lambda: deployment.client("events").list_rules(EventBusName=output("EventBusName"), Limit=1),
        "api-key": lambda: deployment.client("secretsmanager").describe_secret(SecretId=output("SecretArn")),
        "export, import": lambda: deployment.client("dynamodb").describe_table(TableName=output("ResourceTableName")),
        "destroy": lambda: deployment.client("cloudformation").describe_stack_resources(StackName=deployment.stack),
    }
    return {command: _may(call) for command, call in calls.items()}


def _may(call: Callable[[], object]) -> bool:
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] in _DENIED:
            return False
        raise refused_by_aws(error) from error
    except BotoCoreError as error:
        raise _unreachable(error) from error
    return True


def _ask(call: Callable[..., Any], **asked: Any) -> Any:  # noqa: ANN401 - a method of a client of botocore
    try:
        return call(**asked)
    except ClientError as error:
        raise refused_by_aws(error) from error
    except BotoCoreError as error:
        raise _unreachable(error) from error


def _unreachable(error: BotoCoreError) -> SetupError:
    return SetupError(f"AWS cannot be asked: {error}", code="no_aws")
