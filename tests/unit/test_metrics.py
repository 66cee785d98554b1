"""Lines that are metrics: what CloudWatch reads in them, and what a person finds."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mdmlib import metrics
from mdmlib.errors import UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("STACK_NAME", "picomdm-prod")

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return read


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "secret"}}, "Query")


def test_a_line_is_what_cloudwatch_makes_metrics_of(lines: Any) -> None:
    metrics.emit("Device connected", {Metric.CONNECT_IDLE: 1, Metric.WEBHOOK_SECONDS: 2.5}, enrollment_id="E1")

    (line,) = lines()
    (described,) = line["_aws"]["CloudWatchMetrics"]
    assert described["Namespace"] == metrics.NAMESPACE
    assert described["Dimensions"] == [[metrics.DIMENSION]]
    assert described["Metrics"] == [
        {"Name": "ConnectIdle", "Unit": "Count"},
        {"Name": "WebhookSeconds", "Unit": "Seconds"},
    ]
    assert isinstance(line["_aws"]["Timestamp"], int)
    assert (line["Stack"], line["ConnectIdle"], line["WebhookSeconds"]) == ("picomdm-prod", 1, 2.5)


def test_a_line_has_the_ids_of_its_request_and_what_it_was_about(lines: Any) -> None:
    logger.append_keys(function_request_id="R1", correlation_id="G1")
    try:
        metrics.emit("Device connected", {Metric.CONNECT_IDLE: 1}, enrollment_id="E1", command_uuid=None)
    finally:
        logger.remove_keys(["function_request_id", "correlation_id"])

    (line,) = lines()
    assert (line["message"], line["level"]) == ("Device connected", "INFO")
    assert (line["function_request_id"], line["correlation_id"], line["enrollment_id"]) == ("R1", "G1", "E1")
    assert "command_uuid" not in line


def test_a_line_is_written_whatever_the_level(lines: Any) -> None:
    logger.setLevel("ERROR")
    try:
        metrics.emit("Device connected", {Metric.CONNECT_IDLE: 1})
    finally:
        logger.setLevel("INFO")

    assert len(lines()) == 1


def test_a_line_stays_one_line_whatever_a_device_says(lines: Any) -> None:
    metrics.emit("Device connected", {Metric.CONNECT_FAILED: 1}, status='Error"}\n{"_aws": {}}')

    (line,) = lines()
    assert line["status"] == 'Error"}\n{"_aws": {}}'


def test_there_are_no_more_series_than_there_is_money_for() -> None:
    assert len(Metric) <= metrics.MOST_SERIES


@pytest.mark.parametrize("code", ["ThrottlingException", "ProvisionedThroughputExceededException", "SlowDown"])
def test_a_throttled_call_is_counted_also_as_the_cause_of_another_error(lines: Any, code: str) -> None:
    error = UnavailableError("The table is busy.")
    error.__cause__ = refused(code)

    metrics.count_if_throttled(error)

    (line,) = lines()
    assert (line["CallsThrottled"], line["code"]) == (1, code)
    assert "secret" not in json.dumps(line)


def test_what_failed_otherwise_is_no_throttled_call(lines: Any) -> None:
    metrics.count_if_throttled(refused("AccessDenied"))
    metrics.count_if_throttled(ValueError())

    assert lines() == []
