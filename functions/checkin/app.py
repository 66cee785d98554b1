"""PUT /mdm/checkin, and PUT /mdm: a device enrolls, tells its push token, asks for what it needs, and leaves.

``/mdm`` is NanoMDM's single path: what is not a check-in message there is a command report.
"""

from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.apple.checkin import decode_checkin
from mdmlib.apple.command_report import CommandReport
from mdmlib.http import device_edge
from mdmlib.observability import logger

app = APIGatewayHttpResolver()
device_edge.register_error_handlers(app)


@app.put("/mdm/checkin")
def put_checkin() -> Response[bytes] | Response[str]:
    """Receive a check-in message."""
    request = device_edge.decode(app.current_event)
    certificate = runtime.device_identity().prove(request.evidence)
    message = decode_checkin(request.body)
    return device_edge.checkin_response(runtime.checkin_service().receive(certificate, message, request.url_params))


@app.put("/mdm")
def put_mdm() -> Response[bytes] | Response[str]:
    """Receive a message of either kind; only a check-in message says so in its content type."""
    request = device_edge.decode(app.current_event)
    if device_edge.is_checkin(request):
        return put_checkin()
    certificate = runtime.device_identity().prove(request.evidence)
    report = CommandReport.decode(request.body)
    return device_edge.plist(runtime.connect_service().report(certificate, report, request.url_params))


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer API Gateway's event."""
    return app.resolve(event, context)
