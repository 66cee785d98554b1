"""``picomdm open``: the deployment's dashboard."""

from typing import Annotated
from urllib.parse import quote

import typer

from picomdm.context import JSON, operator_of

_DOMAINS = {"cn-": "amazonaws.cn", "us-gov-": "amazonaws-us-gov.com"}
"""Where the console of another partition is."""


def open_dashboard(
    context: typer.Context,
    *,
    only_print: Annotated[bool, typer.Option("--print", help="Open no browser.")] = False,
    _json: JSON = False,
) -> None:
    """Open the dashboard in CloudWatch, and print its URL."""
    operator = operator_of(context)
    deployment = operator.deployment
    name, region = deployment.output("DashboardName"), deployment.region
    domain = next((each for prefix, each in _DOMAINS.items() if region.startswith(prefix)), "aws.amazon.com")
    host = f"{region}.console.{domain}" if domain == "aws.amazon.com" else f"console.{domain}"
    url = f"https://{host}/cloudwatch/home?region={region}#dashboards/dashboard/{quote(name, safe='')}"
    operator.terminal.answer({"url": url}, lambda: operator.terminal.plain(url))
    if not only_print and not operator.terminal.as_json:
        typer.launch(url)
