"""Enrollment: /mdm/enroll, /ota and /mdm/account hand out profiles, /scep the identity that they ask for.

``/authproxy/`` is here as well, for it is as rare, and what it needs would make the busy functions slower to start.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.http import enroll_edge, gateway, pages
from mdmlib.http.device_app import DeviceAnswer, DeviceApp, GatewayRequest
from mdmlib.observability import logger

app = DeviceApp()
enroll_edge.register_error_handlers(app)


@app.route("GET /health")
def get_health(_event: GatewayRequest) -> DeviceAnswer:
    """Say that somebody answers."""
    return enroll_edge.alive()


@app.route("GET /mdm/enroll/{token}")
def get_profile(event: GatewayRequest) -> DeviceAnswer:
    """Hand out an enrollment profile to whoever has a link."""
    return _download(event, runtime.enrollment_links().profile(event.parameters["token"]))


@app.route("GET /mdm/enroll", "POST /mdm/enroll")
def enroll_without_link(event: GatewayRequest) -> DeviceAnswer:
    """Hand out an enrollment profile by ADE to a device that shows its MachineInfo, else to everybody if it is open."""
    machine_info = enroll_edge.decode_machine_info(event)
    if machine_info is not None:
        return enroll_edge.profile(runtime.ade_enrollment().profile(machine_info))
    return _download(event, runtime.enrollment_links().open_profile())


@app.route("GET /ota/enroll/{token}")
def begin_ota(event: GatewayRequest) -> DeviceAnswer:
    """Begin an over-the-air enrollment for whoever has a link."""
    return _download(event, runtime.ota_enrollment().profile_service(event.parameters["token"]))


@app.route("GET /ota/enroll")
def begin_open_ota(event: GatewayRequest) -> DeviceAnswer:
    """Begin an over-the-air enrollment for everybody, where the deployment says so."""
    return _download(event, runtime.ota_enrollment().profile_service(None))


@app.route("POST /ota/phase23")
def continue_ota(event: GatewayRequest) -> DeviceAnswer:
    """Answer the second and the third phase of over-the-air enrollment."""
    return enroll_edge.profile(runtime.ota_enrollment().answer(gateway.body_of(event)))


@app.route("GET /.well-known/com.apple.remotemanagement")
def discover_service(event: GatewayRequest) -> DeviceAnswer:
    """Tell a device where to enroll for an account."""
    query = event.query
    document = runtime.account_driven_enrollment().discover(
        query.get("user-identifier", ""), query.get("model-family", "")
    )
    return enroll_edge.service_discovery(document)


@app.route("POST /mdm/account/{mode}")
def enroll_account(event: GatewayRequest) -> DeviceAnswer:
    """Hand out an enrollment profile for the person who signed in."""
    mode, authorization = event.parameters["mode"], gateway.headers_of(event).get("authorization")
    return enroll_edge.profile(runtime.account_driven_enrollment().profile(mode, authorization, gateway.body_of(event)))


@app.route("GET /mdm")
def get_page(_event: GatewayRequest) -> DeviceAnswer:
    """Tell a person who opened the address that devices report to what it is."""
    return pages.server(runtime.settings().organization)


@app.route("GET /scep", "POST /scep")
def scep(event: GatewayRequest) -> DeviceAnswer:
    """Answer a SCEP client."""
    return enroll_edge.answer_scep(enroll_edge.decode_scep(event), runtime.certificate_authority())


@app.route("GET /crl/{name}")
def get_crl(event: GatewayRequest) -> DeviceAnswer:
    """Hand out which certificates of one of our CAs are revoked."""
    return enroll_edge.crl(event.parameters["name"], runtime.revocation_lists())


@app.route("GET /repo/{name}")
def get_repository_file(event: GatewayRequest) -> DeviceAnswer:
    """Hand out an app's manifest, or lead to its package."""
    return enroll_edge.repository(event.parameters["name"], runtime.apps())


def _download(event: GatewayRequest, profile: bytes) -> DeviceAnswer:
    return enroll_edge.download(event, profile, runtime.enrollment_profiles().options().organization)


@app.route("ANY /authproxy/{proxy+}")
def pass_on(event: GatewayRequest) -> DeviceAnswer:
    """Pass a request of an enrolled device on to another server."""
    return enroll_edge.pass_back(runtime.auth_proxy().forward(enroll_edge.decode_proxied(event)))


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Answer API Gateway's event."""
    return app.answer(event)
