"""Queues, schedules and rules: nothing is lost without somebody hearing of it."""

import json
import re
from datetime import timedelta
from typing import Any

from mdmlib.services import webhooks
from mdmlib.services.vitals import INTERVALS, PUBLISH_LEFTOVERS
from mdmlib.services.webhook_filters import WebhookFilter
from tests.template.document import Template, listed, named

TWO_WEEKS = 14 * 24 * 3600


def dead_letter_queues(template: Template) -> set[str]:
    return {name for name in template.of("SQS::Queue") if "DeadLetter" in name}


def consumers(template: Template) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return the functions that read each queue, and how."""
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name in template.of("Serverless::Function"):
        for source in template.function(name).get("Events", {}).values():
            if source["Type"] == "SQS":
                found.setdefault(named(source["Properties"]["Queue"]), []).append((name, source["Properties"]))
    return found


def test_every_queue_has_a_dead_letter_queue_of_its_own(template: Template) -> None:
    queues = template.of("SQS::Queue")
    dead = dead_letter_queues(template)
    for name in queues.keys() - dead:
        policy = queues[name]["RedrivePolicy"]
        assert named(policy["deadLetterTargetArn"]) == name.replace("Queue", "DeadLetterQueue")
        assert policy["maxReceiveCount"] >= 5


def test_dead_letters_are_kept_as_long_as_sqs_keeps_anything(template: Template) -> None:
    for name in dead_letter_queues(template):
        assert template.resources[name]["Properties"]["MessageRetentionPeriod"] == TWO_WEEKS


def test_every_queue_is_encrypted(template: Template) -> None:
    for queue in template.of("SQS::Queue").values():
        assert queue["SqsManagedSseEnabled"] is True


def test_every_queue_is_read_by_one_function_that_reports_failures_one_by_one(template: Template) -> None:
    found = consumers(template)

    assert set(found) == template.of("SQS::Queue").keys() - dead_letter_queues(template)
    for readers in found.values():
        ((_, source),) = readers
        assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_a_message_stays_invisible_for_six_times_its_functions_timeout(template: Template) -> None:
    for queue, readers in consumers(template).items():
        for function, _ in readers:
            timeout = template.function(function)["Timeout"]
            assert template.resources[queue]["Properties"]["VisibilityTimeout"] == 6 * timeout


def test_a_function_that_puts_messages_back_is_not_cut_for_a_loop(template: Template) -> None:
    for queue, readers in consumers(template).items():
        for function, _ in readers:
            role = template.resources[named(template.function(function)["Role"])]["Properties"]
            sent_to = {
                named(resource)
                for statement in role["Policies"][0]["PolicyDocument"]["Statement"]
                if "sqs:SendMessage" in listed(statement["Action"])
                for resource in listed(statement["Resource"])
            }
            assert queue not in sent_to or template.function(function)["RecursiveLoop"] == "Allow"


def test_pushes_are_paced_by_parameters(template: Template) -> None:
    ((_, source),) = consumers(template)["PushQueue"]

    assert source["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "PushMaximumConcurrency"}}


def test_what_a_rule_or_schedule_cannot_deliver_goes_to_a_dead_letter_queue(template: Template) -> None:
    targets = [target for rule in template.of("Events::Rule").values() for target in rule["Targets"]]
    targets += [
        source["Properties"]
        for name in template.of("Serverless::Function")
        for source in template.function(name).get("Events", {}).values()
        if source["Type"] == "Schedule"
    ]

    assert len(targets) >= 2
    for target in targets:
        assert named(target["DeadLetterConfig"]["Arn"]) == "TargetDeadLetterQueue"
        assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] > 0


def test_a_scheduled_invocation_that_fails_goes_to_a_dead_letter_queue(template: Template) -> None:
    for name in template.of("Serverless::Function"):
        function = template.function(name)
        if any(source["Type"] == "Schedule" for source in function.get("Events", {}).values()):
            on_failure = function["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]
            assert named(on_failure["Destination"]) == "TargetDeadLetterQueue"


def test_the_first_webhook_is_as_those_that_are_made_later(template: Template) -> None:
    resource = template.resources["DefaultWebhookRule"]
    rule = resource["Properties"]
    (target,) = rule["Targets"]

    assert resource["Condition"] == "HasWebhookUrl"
    assert rule["Name"] == {"Fn::Sub": f"${{AWS::StackName}}-webhook-{webhooks.DEFAULT}"}
    assert rule["EventPattern"] == WebhookFilter().pattern()
    assert named(target["Arn"]) == "WebhookQueue"
    assert target["InputTransformer"]["InputPathsMap"] == {"event": "$.detail"}
    filled = target["InputTransformer"]["InputTemplate"].replace("<event>", '{"topic": "mdm.Connect"}')
    assert json.loads(filled) == {"subscription": webhooks.DEFAULT, "event": {"topic": "mdm.Connect"}}


def test_payloads_leave_the_bucket_whatever_their_kind(template: Template) -> None:
    rules = template.resources["PayloadBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    expiring = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule}
    written = {
        match[1]
        for _, statement in template.statements()
        if "s3:PutObject" in statement["Action"]
        for resource in listed(statement["Resource"])
        if (match := re.fullmatch(r"\$\{PayloadBucket.Arn\}/(\w+/)\*", resource["Fn::Sub"]))
    }

    # What administrators store stays until they delete it.
    assert set(expiring) == written - {"apps/", "profiles/"}
    # An event's body is needed for a day of retries and two weeks in a dead-letter queue; a command's until its end.
    assert expiring["events/"] > 15
    assert expiring["commands/"] > template.parameters["CommandDays"]["MaxValue"] + 2


def test_every_schedule_is_a_task_and_comes_as_often_as_it_is_expected(template: Template) -> None:
    units = {"minute": "minutes", "hour": "hours", "day": "days"}
    found = {}
    for source in template.function("HousekeepingFunction")["Events"].values():
        if source["Type"] == "Schedule":
            rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", source["Properties"]["Schedule"])
            assert rate
            task = json.loads(source["Properties"].get("Input", "{}")).get("task", PUBLISH_LEFTOVERS)
            found[task] = timedelta(**{units[rate[2]]: int(rate[1])})

    assert found == INTERVALS
