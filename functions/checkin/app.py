"""PUT /mdm/checkin, and PUT /mdm: a device enrolls, tells its push token, asks for what it needs, and leaves.

``/mdm`` is NanoMDM's single path: what is not a check-in message there is a command report.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.apple.checkin import decode_checkin
from mdmlib.apple.command_report import CommandReport
from mdmlib.http import device_edge
from mdmlib.http.device_app import DeviceAnswer, DeviceApp, GatewayRequest
from mdmlib.observability import logger

app = DeviceApp()
device_edge.register_error_handlers(app)


@app.route("PUT /mdm/checkin")
def put_checkin(event: GatewayRequest) -> DeviceAnswer:
    """Receive a check-in message."""
    request = device_edge.decode(event)
    certificate = runtime.device_identity().prove(request.evidence)
    message = decode_checkin(request.body)
    return device_edge.checkin_response(runtime.checkin_service().receive(certificate, message, request.url_params))


@app.route("PUT /mdm")
def put_mdm(event: GatewayRequest) -> DeviceAnswer:
    """Receive a message of either kind; only a check-in message says so in its content type."""
    request = device_edge.decode(event)
    if device_edge.is_checkin(request):
        return put_checkin(event)
    certificate = runtime.device_identity().prove(request.evidence)
    report = CommandReport.decode(request.body)
    return device_edge.plist(runtime.connect_service().report(certificate, report, request.url_params))


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Answer API Gateway's event."""
    return app.answer(event)
