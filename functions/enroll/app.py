"""Enrollment: /mdm/enroll, /ota and /mdm/account hand out profiles, /scep the identity that they ask for.

``/authproxy/`` is here as well, for it is as rare, and what it needs would make the busy functions slower to start.
"""

from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.http import enroll_edge, gateway, monitoring, pages
from mdmlib.observability import logger

app = APIGatewayHttpResolver()
enroll_edge.register_error_handlers(app)


@app.get("/health")
def get_health() -> Response[str]:
    """Say that somebody answers."""
    return monitoring.alive()


@app.get("/mdm/enroll/<token>")
def get_profile(token: str) -> Response[Any]:
    """Hand out an enrollment profile to whoever has a link."""
    return _download(runtime.enrollment_links().profile(token))


@app.route("/mdm/enroll", method=["GET", "POST"])
def enroll_without_link() -> Response[Any]:
    """Hand out an enrollment profile by ADE to a device that shows its MachineInfo, else to everybody if it is open."""
    machine_info = enroll_edge.decode_machine_info(app.current_event)
    if machine_info is not None:
        return enroll_edge.profile(runtime.ade_enrollment().profile(machine_info))
    return _download(runtime.enrollment_links().open_profile())


@app.get("/ota/enroll/<token>")
def begin_ota(token: str) -> Response[Any]:
    """Begin an over-the-air enrollment for whoever has a link."""
    return _download(runtime.ota_enrollment().profile_service(token))


@app.get("/ota/enroll")
def begin_open_ota() -> Response[Any]:
    """Begin an over-the-air enrollment for everybody, where the deployment says so."""
    return _download(runtime.ota_enrollment().profile_service(None))


@app.post("/ota/phase23")
def continue_ota() -> Response[bytes]:
    """Answer the second and the third phase of over-the-air enrollment."""
    return enroll_edge.profile(runtime.ota_enrollment().answer(gateway.body_of(app.current_event)))


@app.get("/.well-known/com.apple.remotemanagement")
def discover_service() -> Response[str]:
    """Tell a device where to enroll for an account."""
    query = app.current_event.query_string_parameters
    document = runtime.account_driven_enrollment().discover(
        query.get("user-identifier", ""), query.get("model-family", "")
    )
    return enroll_edge.service_discovery(document)


@app.post("/mdm/account/<mode>")
def enroll_account(mode: str) -> Response[bytes]:
    """Hand out an enrollment profile for the person who signed in."""
    event = app.current_event
    authorization = gateway.headers_of(event).get("authorization")
    return enroll_edge.profile(runtime.account_driven_enrollment().profile(mode, authorization, gateway.body_of(event)))


@app.get("/mdm")
def get_page() -> Response[str]:
    """Tell a person who opened the address that devices report to what it is."""
    return pages.server(runtime.settings().organization)


@app.route("/scep", method=["GET", "POST"])
def scep() -> Response[bytes]:
    """Answer a SCEP client."""
    return enroll_edge.answer_scep(enroll_edge.decode_scep(app.current_event), runtime.certificate_authority())


@app.get("/crl/<name>")
def get_crl(name: str) -> Response[bytes]:
    """Hand out which certificates of one of our CAs are revoked."""
    return enroll_edge.crl(name, runtime.revocation_lists())


@app.get("/repo/<name>")
def get_repository_file(name: str) -> Response[Any]:
    """Hand out an app's manifest, or lead to its package."""
    return enroll_edge.repository(name, runtime.apps())


def _download(profile: bytes) -> Response[Any]:
    return enroll_edge.download(app.current_event, profile, runtime.enrollment_profiles().options().organization)


@app.route(r"/authproxy/[\s\S]+", method=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def proxy() -> Response[bytes]:
    """Pass a request of an enrolled device on to another server."""
    return enroll_edge.pass_back(runtime.auth_proxy().forward(enroll_edge.decode_proxied(app.current_event)))


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer API Gateway's event."""
    return app.resolve(event, context)
