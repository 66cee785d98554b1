"""Metrics that an alarm looks at, in CloudWatch's embedded format: a line of the log, and no call."""

from typing import Final

from aws_lambda_powertools.metrics import MetricUnit, single_metric

_NAMESPACE: Final = "PicoMDM"


def count(name: str, value: int, *, stack_name: str) -> None:
    """Note that there are so many of something; the function's name is a dimension, too."""
    with single_metric(name=name, unit=MetricUnit.Count, value=value, namespace=_NAMESPACE) as metric:
        metric.add_dimension("Stack", stack_name)
