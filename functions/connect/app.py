"""PUT /mdm/connect: a device reports on one command and receives the next."""

from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.apple.command_report import CommandReport
from mdmlib.http import device_edge
from mdmlib.observability import logger

app = APIGatewayHttpResolver()
device_edge.register_error_handlers(app)


@app.put("/mdm/connect")
def put_connect() -> Response[bytes]:
    """Take a report, hand out the next command."""
    request = device_edge.decode(app.current_event)
    certificate = runtime.device_identity().prove(request.evidence)
    report = CommandReport.decode(request.body)
    return device_edge.plist(runtime.connect_service().report(certificate, report, request.url_params))


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer API Gateway's event."""
    return app.resolve(event, context)
