"""PUT /mdm/connect: a device reports on one command and receives the next."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.apple.command_report import CommandReport
from mdmlib.http import device_edge
from mdmlib.http.device_app import DeviceAnswer, DeviceApp, GatewayRequest
from mdmlib.observability import logger

app = DeviceApp()
device_edge.register_error_handlers(app)


@app.route("PUT /mdm/connect")
def put_connect(event: GatewayRequest) -> DeviceAnswer:
    """Take a report, hand out the next command."""
    request = device_edge.decode(event)
    certificate = runtime.device_identity().prove(request.evidence)
    report = CommandReport.decode(request.body)
    return device_edge.plist(runtime.connect_service().report(certificate, report, request.url_params))


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Answer API Gateway's event."""
    return app.answer(event)
