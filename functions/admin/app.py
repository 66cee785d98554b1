"""Administrators: PicoMDM's own API, but for commands."""

from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.http import (
    admin_edge,
    etags,
    idempotency,
    monitoring,
    v2,
    v2_ade,
    v2_ade_devices,
    v2_apps,
    v2_blueprints,
    v2_checkin,
    v2_enrollment,
    v2_identity,
    v2_inventory,
    v2_push,
    v2_webhooks,
)
from mdmlib.observability import logger

app = APIGatewayHttpResolver()
admin_edge.register_error_handlers(app)
admin_edge.refuse_long_names(app)
idempotency.remember_answers(app, runtime.idempotent_requests)
etags.answer_conditionally(app)


@app.get("/metrics")
def get_metrics() -> Response[str]:
    """Tell Prometheus of certificates, schedules, queues and devices."""
    return monitoring.metrics(runtime.vitals().report())


@app.get("/health")
def get_health() -> Response[str]:
    """Say whether all is well."""
    return monitoring.health(runtime.vitals().report())


@app.get("/v2/push-certificates")
def list_push_certificates() -> Response[str]:
    """List the push certificates."""
    return v2_push.list_push_certificates(admin_edge.decode(app.current_event), runtime.push_certificates())


@app.post("/v2/push-certificates")
def post_push_certificate() -> Response[str]:
    """Store a push certificate."""
    request = admin_edge.decode(app.current_event)
    return v2_push.post_push_certificate(request, runtime.push_certificates(), runtime.push_certificate_requests())


@app.delete("/v2/push-certificates/<topic>")
def delete_push_certificate(topic: str) -> Response[str]:
    """Forget a topic."""
    return v2_push.delete_push_certificate(topic, runtime.push_certificates())


@app.post("/v2/push-certificate-requests")
def post_push_certificate_request() -> Response[str]:
    """Make a key and a request for its push certificate."""
    request = admin_edge.decode(app.current_event)
    return v2_push.post_push_certificate_request(request, runtime.push_certificate_requests())


@app.get("/v2/push-certificate-requests")
def list_push_certificate_requests() -> Response[str]:
    """List the requests for push certificates."""
    request = admin_edge.decode(app.current_event)
    return v2_push.list_push_certificate_requests(request, runtime.push_certificate_requests())


@app.get("/v2/push-certificate-requests/<request_id>")
def get_push_certificate_request(request_id: str) -> Response[str]:
    """Show a request for a push certificate."""
    request = admin_edge.decode(app.current_event)
    return v2_push.get_push_certificate_request(request_id, request, runtime.push_certificate_requests())


@app.delete("/v2/push-certificate-requests/<request_id>")
def delete_push_certificate_request(request_id: str) -> Response[str]:
    """Forget a request for a push certificate."""
    request = admin_edge.decode(app.current_event)
    return v2_push.delete_push_certificate_request(request_id, request, runtime.push_certificate_requests())


@app.post("/v2/push-certificate-requests/<request_id>/opened")
def open_push_certificate_request(request_id: str) -> Response[str]:
    """Read what mdmcert.download has made of a request."""
    request = admin_edge.decode(app.current_event)
    return v2_push.open_push_certificate_request(request_id, request, runtime.push_certificate_requests())


@app.post("/v2/signed-push-certificate-requests")
def sign_push_certificate_request() -> Response[str]:
    """Vouch, as an MDM vendor, for a customer's request."""
    return v2_push.sign_push_certificate_request(admin_edge.decode(app.current_event), runtime.now)


@app.post("/v2/enrollment-links")
def post_enrollment_link() -> Response[str]:
    """Make an enrollment link."""
    request = admin_edge.decode(app.current_event)
    return v2.create_enrollment_link(request, runtime.enrollment_links(), runtime.certificate_authority())


@app.get("/v2/enrollment-links")
def list_enrollment_links() -> Response[str]:
    """List the enrollment links."""
    return v2.list_enrollment_links(admin_edge.decode(app.current_event), runtime.enrollment_links())


@app.delete("/v2/enrollment-links/<link_id>")
def delete_enrollment_link(link_id: str) -> Response[str]:
    """Revoke an enrollment link."""
    return v2.revoke_enrollment_link(link_id, runtime.enrollment_links())


@app.put("/v2/enrollment-profile")
def put_enrollment_profile() -> Response[str]:
    """Say how enrollment profiles look."""
    return v2_enrollment.put_enrollment_profile(admin_edge.decode(app.current_event), runtime.enrollment_profiles())


@app.get("/v2/enrollment-profile")
def get_enrollment_profile() -> Response[str]:
    """Tell how enrollment profiles look."""
    return v2_enrollment.get_enrollment_profile(admin_edge.decode(app.current_event), runtime.enrollment_profiles())


@app.put("/v2/enrollment-profile/template")
def put_profile_template() -> Response[str]:
    """Make enrollment profiles from a template."""
    return v2_enrollment.put_profile_template(admin_edge.decode(app.current_event), runtime.enrollment_profiles())


@app.delete("/v2/enrollment-profile/template")
def delete_profile_template() -> Response[str]:
    """Make enrollment profiles without a template."""
    return v2_enrollment.delete_profile_template(runtime.enrollment_profiles())


@app.put("/v2/enrollment-profile/signing-identity")
def put_signing_identity() -> Response[str]:
    """Sign enrollment profiles."""
    return v2_enrollment.put_signing_identity(admin_edge.decode(app.current_event), runtime.enrollment_profiles())


@app.delete("/v2/enrollment-profile/signing-identity")
def delete_signing_identity() -> Response[str]:
    """Sign enrollment profiles no more."""
    return v2_enrollment.delete_signing_identity(runtime.enrollment_profiles())


@app.put("/v2/certificate-authorities/<name>")
def put_certificate_authority(name: str) -> Response[str]:
    """Trust certificates that an authority has issued to devices."""
    request = admin_edge.decode(app.current_event)
    return v2_identity.put_certificate_authority(name, request, runtime.certificate_authorities())


@app.post("/v2/certificate-authorities")
def post_certificate_authority() -> Response[str]:
    """Make or import a CA that issues identities."""
    request = admin_edge.decode(app.current_event)
    return v2_identity.post_certificate_authority(request, runtime.certificate_authorities())


@app.put("/v2/certificate-authorities/<name>/activation")
def put_certificate_authority_activation(name: str) -> Response[str]:
    """Let a CA issue from now on."""
    request = admin_edge.decode(app.current_event)
    return v2_identity.activate_certificate_authority(name, request, runtime.certificate_authorities())


@app.get("/v2/certificate-authorities")
def list_certificate_authorities() -> Response[str]:
    """List the authorities whose certificates are trusted."""
    request = admin_edge.decode(app.current_event)
    return v2_identity.list_certificate_authorities(request, runtime.certificate_authorities())


@app.get("/v2/certificate-authorities/<name>")
def get_certificate_authority(name: str) -> Response[str]:
    """Show an authority's certificates."""
    request = admin_edge.decode(app.current_event)
    return v2_identity.get_certificate_authority(name, request, runtime.certificate_authorities())


@app.delete("/v2/certificate-authorities/<name>")
def delete_certificate_authority(name: str) -> Response[str]:
    """Trust an authority no more."""
    request = admin_edge.decode(app.current_event)
    return v2_identity.delete_certificate_authority(name, request, runtime.certificate_authorities())


@app.post("/v2/certificate-revocations")
def post_certificate_revocation() -> Response[str]:
    """Revoke certificates of devices."""
    return v2_identity.post_certificate_revocation(admin_edge.decode(app.current_event), runtime.revocations())


@app.get("/v2/certificate-revocations")
def list_certificate_revocations() -> Response[str]:
    """List the certificates that are revoked."""
    return v2_identity.list_certificate_revocations(admin_edge.decode(app.current_event), runtime.revocations())


@app.post("/v2/scep-challenges")
def post_scep_challenge() -> Response[str]:
    """Make a SCEP challenge for one identity."""
    request = admin_edge.decode(app.current_event)
    return v2_identity.post_scep_challenge(request, runtime.scep_challenges(), runtime.certificate_authority())


@app.put("/v2/scep-challenges/static")
def put_static_challenge() -> Response[str]:
    """Set the static SCEP challenge."""
    return v2_identity.put_static_challenge(admin_edge.decode(app.current_event), runtime.static_challenge())


@app.get("/v2/scep-challenges/static")
def get_static_challenge() -> Response[str]:
    """Tell whether there is a static SCEP challenge."""
    return v2_identity.get_static_challenge(admin_edge.decode(app.current_event), runtime.static_challenge())


@app.delete("/v2/scep-challenges/static")
def delete_static_challenge() -> Response[str]:
    """End the static SCEP challenge."""
    return v2_identity.delete_static_challenge(admin_edge.decode(app.current_event), runtime.static_challenge())


@app.put("/v2/account-driven-enrollment")
def put_account_driven_enrollment() -> Response[str]:
    """Let people enroll by signing in."""
    return v2_enrollment.put_account_driven_enrollment(
        admin_edge.decode(app.current_event), runtime.account_driven_enrollment()
    )


@app.get("/v2/account-driven-enrollment")
def get_account_driven_enrollment() -> Response[str]:
    """Tell who may enroll by signing in."""
    return v2_enrollment.get_account_driven_enrollment(
        admin_edge.decode(app.current_event), runtime.account_driven_enrollment()
    )


@app.delete("/v2/account-driven-enrollment")
def delete_account_driven_enrollment() -> Response[str]:
    """Let nobody enroll by signing in."""
    return v2_enrollment.delete_account_driven_enrollment(
        admin_edge.decode(app.current_event), runtime.account_driven_enrollment()
    )


@app.put("/v2/device-certificate-authorities/<name>")
def put_device_authority(name: str) -> Response[str]:
    """Trust the devices of an authority."""
    return v2_enrollment.put_device_authority(name, admin_edge.decode(app.current_event), runtime.device_authorities())


@app.get("/v2/device-certificate-authorities")
def list_device_authorities() -> Response[str]:
    """List the authorities whose devices are trusted."""
    return v2_enrollment.list_device_authorities(admin_edge.decode(app.current_event), runtime.device_authorities())


@app.delete("/v2/device-certificate-authorities/<name>")
def delete_device_authority(name: str) -> Response[str]:
    """Trust the devices of an authority no more."""
    return v2_enrollment.delete_device_authority(name, runtime.device_authorities())


@app.post("/v2/ade-servers/<name>/sync")
def post_ade_sync(name: str) -> Response[str]:
    """Have Apple's list of a server read now."""
    return v2_ade_devices.request_sync(name, admin_edge.decode(app.current_event), runtime.ade_syncs())


@app.get("/v2/ade-servers/<name>/sync")
def get_ade_sync(name: str) -> Response[str]:
    """Tell how far Apple's list of a server was read."""
    return v2_ade_devices.get_sync(name, admin_edge.decode(app.current_event), runtime.ade_syncs())


@app.get("/v2/ade-devices")
def list_ade_devices() -> Response[str]:
    """List the devices in Apple's lists."""
    return v2_ade_devices.list_devices(admin_edge.decode(app.current_event), runtime.ade_devices())


@app.get("/v2/ade-devices/<serial_number>")
def get_ade_device(serial_number: str) -> Response[str]:
    """Show a device in Apple's lists."""
    return v2_ade_devices.get_device(serial_number, admin_edge.decode(app.current_event), runtime.ade_devices())


@app.get("/v2/ade-assignment-rules")
def list_ade_assignment_rules() -> Response[str]:
    """List the rules that say which profile a device gets."""
    return v2_ade_devices.list_rules(admin_edge.decode(app.current_event), runtime.ade_assignment_rules())


@app.get("/v2/ade-assignment-rules/<name>")
def get_ade_assignment_rule(name: str) -> Response[str]:
    """Show a rule."""
    return v2_ade_devices.get_rule(name, admin_edge.decode(app.current_event), runtime.ade_assignment_rules())


@app.put("/v2/ade-assignment-rules/<name>")
def put_ade_assignment_rule(name: str) -> Response[str]:
    """Say which profile some devices get."""
    request = admin_edge.decode(app.current_event)
    return v2_ade_devices.put_rule(name, request, runtime.ade_assignment_rules(), runtime.ade_syncs())


@app.delete("/v2/ade-assignment-rules/<name>")
def delete_ade_assignment_rule(name: str) -> Response[str]:
    """Forget a rule."""
    request = admin_edge.decode(app.current_event)
    return v2_ade_devices.delete_rule(name, request, runtime.ade_assignment_rules(), runtime.ade_syncs())


@app.post("/v2/ade-serial-numbers")
def post_ade_serial_numbers() -> Response[str]:
    """Let devices enroll by ADE."""
    return v2_enrollment.add_ade_serial_numbers(admin_edge.decode(app.current_event), runtime.ade_serial_numbers())


@app.get("/v2/ade-serial-numbers")
def list_ade_serial_numbers() -> Response[str]:
    """List the devices that may enroll by ADE."""
    return v2_enrollment.list_ade_serial_numbers(admin_edge.decode(app.current_event), runtime.ade_serial_numbers())


@app.delete("/v2/ade-serial-numbers/<serial_number>")
def delete_ade_serial_number(serial_number: str) -> Response[str]:
    """Take a device out of the list."""
    return v2_enrollment.remove_ade_serial_number(serial_number, runtime.ade_serial_numbers())


@app.get("/v2/ade-servers")
def list_ade_servers() -> Response[str]:
    """List the servers of Apple Business and School Manager."""
    return v2_ade.list_servers(admin_edge.decode(app.current_event), runtime.ade_servers())


@app.put("/v2/ade-servers/<name>")
def put_ade_server(name: str) -> Response[str]:
    """Make a server, with the certificate for Apple's portal."""
    return v2_ade.put_server(name, admin_edge.decode(app.current_event), runtime.ade_servers())


@app.get("/v2/ade-servers/<name>")
def get_ade_server(name: str) -> Response[str]:
    """Show a server."""
    return v2_ade.get_server(name, admin_edge.decode(app.current_event), runtime.ade_servers())


@app.delete("/v2/ade-servers/<name>")
def delete_ade_server(name: str) -> Response[str]:
    """Forget a server."""
    return v2_ade.delete_server(name, runtime.ade_servers())


@app.post("/v2/ade-servers/<name>/certificate")
def post_ade_certificate(name: str) -> Response[str]:
    """Make a key pair that is to follow the present one."""
    return v2_ade.stage_certificate(name, admin_edge.decode(app.current_event), runtime.ade_servers())


@app.put("/v2/ade-servers/<name>/token")
def put_ade_token(name: str) -> Response[str]:
    """Import a token of Apple's portal."""
    request = admin_edge.decode(app.current_event)
    return v2_ade.put_token(name, request, runtime.ade_servers(), runtime.ade_syncs())


@app.get("/v2/ade-servers/<name>/account")
def get_ade_account(name: str) -> Response[str]:
    """Ask Apple for the organization and the server."""
    return v2_ade.get_account(name, admin_edge.decode(app.current_event), runtime.ade_servers())


@app.get("/v2/ade-servers/<name>/beta-tokens")
def list_ade_beta_tokens(name: str) -> Response[str]:
    """List the tokens of Apple's beta programs."""
    return v2_ade.list_beta_tokens(name, admin_edge.decode(app.current_event), runtime.ade_servers())


@app.get("/v2/ade-servers/<name>/account-driven-enrollment")
def get_ade_discovery_url(name: str) -> Response[str]:
    """Tell where Apple sends devices of the organization's accounts."""
    return v2_ade.get_discovery_url(name, admin_edge.decode(app.current_event), runtime.ade_servers())


@app.put("/v2/ade-servers/<name>/account-driven-enrollment")
def put_ade_discovery_url(name: str) -> Response[str]:
    """Say where Apple sends them."""
    return v2_ade.put_discovery_url(name, admin_edge.decode(app.current_event), runtime.ade_servers())


@app.delete("/v2/ade-servers/<name>/account-driven-enrollment")
def delete_ade_discovery_url(name: str) -> Response[str]:
    """Have Apple send them nowhere."""
    return v2_ade.delete_discovery_url(name, runtime.ade_servers())


@app.post("/v2/ade-servers/<name>/assignments")
def post_ade_assignment(name: str) -> Response[str]:
    """Give devices a profile."""
    return v2_ade.assign(name, admin_edge.decode(app.current_event), runtime.ade_assignments())


@app.post("/v2/ade-servers/<name>/unassignments")
def post_ade_unassignment(name: str) -> Response[str]:
    """Take their profile away from devices."""
    return v2_ade.unassign(name, admin_edge.decode(app.current_event), runtime.ade_assignments())


@app.post("/v2/ade-servers/<name>/disownments")
def post_ade_disownment(name: str) -> Response[str]:
    """Let devices leave the organization."""
    return v2_ade.disown(name, admin_edge.decode(app.current_event), runtime.ade_assignments())


@app.post("/v2/ade-servers/<name>/activation-locks")
def post_activation_lock(name: str) -> Response[str]:
    """Lock a device through Apple."""
    return v2_ade.lock(name, admin_edge.decode(app.current_event), runtime.activation_locks())


@app.get("/v2/activation-locks/<serial_number>")
def get_activation_lock(serial_number: str) -> Response[str]:
    """Show what ends a lock."""
    return v2_ade.get_lock(serial_number, admin_edge.decode(app.current_event), runtime.activation_locks())


@app.delete("/v2/activation-locks/<serial_number>")
def delete_activation_lock(serial_number: str) -> Response[str]:
    """Forget what ends a lock."""
    return v2_ade.delete_lock(serial_number, runtime.activation_locks())


@app.post("/v2/activation-locks/<serial_number>/unlock")
def post_activation_unlock(serial_number: str) -> Response[str]:
    """Have Apple end a lock."""
    return v2_ade.unlock(serial_number, admin_edge.decode(app.current_event), runtime.activation_locks())


@app.get("/v2/ade-profiles")
def list_ade_profiles() -> Response[str]:
    """List the profiles of ADE."""
    return v2_ade.list_profiles(admin_edge.decode(app.current_event), runtime.ade_profiles())


@app.put("/v2/ade-profiles/<name>")
def put_ade_profile(name: str) -> Response[str]:
    """Say what devices do when they are switched on."""
    request = admin_edge.decode(app.current_event)
    return v2_ade.put_profile(name, request, runtime.ade_profiles(), runtime.ade_syncs())


@app.get("/v2/ade-profiles/<name>")
def get_ade_profile(name: str) -> Response[str]:
    """Show a profile of ADE."""
    return v2_ade.get_profile(name, admin_edge.decode(app.current_event), runtime.ade_profiles())


@app.delete("/v2/ade-profiles/<name>")
def delete_ade_profile(name: str) -> Response[str]:
    """Forget a profile of ADE."""
    return v2_ade.delete_profile(name, admin_edge.decode(app.current_event), runtime.ade_profiles())


@app.put("/v2/minimum-os-versions/<platform>")
def put_minimum_os_version(platform: str) -> Response[str]:
    """Ask the devices of a platform for a version of their OS."""
    return v2_enrollment.put_minimum_os_version(
        platform, admin_edge.decode(app.current_event), runtime.minimum_os_versions()
    )


@app.get("/v2/minimum-os-versions")
def list_minimum_os_versions() -> Response[str]:
    """List what devices have to run."""
    return v2_enrollment.list_minimum_os_versions(admin_edge.decode(app.current_event), runtime.minimum_os_versions())


@app.delete("/v2/minimum-os-versions/<platform>")
def delete_minimum_os_version(platform: str) -> Response[str]:
    """Ask for no version any more."""
    return v2_enrollment.remove_minimum_os_version(platform, runtime.minimum_os_versions())


@app.post("/v2/webhooks")
def post_webhook() -> Response[str]:
    """Subscribe a URL to events."""
    return v2_webhooks.create_webhook(admin_edge.decode(app.current_event), runtime.webhooks())


@app.get("/v2/webhooks")
def list_webhooks() -> Response[str]:
    """List the webhook subscriptions."""
    return v2_webhooks.list_webhooks(admin_edge.decode(app.current_event), runtime.webhooks())


@app.get("/v2/webhooks/<subscription_id>")
def get_webhook(subscription_id: str) -> Response[str]:
    """Tell of one webhook subscription."""
    return v2_webhooks.get_webhook(subscription_id, admin_edge.decode(app.current_event), runtime.webhooks())


@app.patch("/v2/webhooks/<subscription_id>")
def patch_webhook(subscription_id: str) -> Response[str]:
    """Change a webhook subscription, pause it or resume it."""
    return v2_webhooks.patch_webhook(subscription_id, admin_edge.decode(app.current_event), runtime.webhooks())


@app.delete("/v2/webhooks/<subscription_id>")
def delete_webhook(subscription_id: str) -> Response[str]:
    """End a webhook subscription."""
    return v2_webhooks.delete_webhook(subscription_id, admin_edge.decode(app.current_event), runtime.webhooks())


@app.post("/v2/webhooks/<subscription_id>/test")
def post_webhook_test(subscription_id: str) -> Response[str]:
    """Try a webhook's receiver out."""
    return v2_webhooks.try_webhook(subscription_id, admin_edge.decode(app.current_event), runtime.webhook_tests())


@app.post("/v2/webhooks/<subscription_id>/replays")
def post_webhook_replay(subscription_id: str) -> Response[str]:
    """Send a webhook the events of a range of time again."""
    return v2_webhooks.start_replay(subscription_id, admin_edge.decode(app.current_event), runtime.webhook_replays())


@app.get("/v2/webhooks/<subscription_id>/replays/<replay>")
def get_webhook_replay(subscription_id: str, replay: str) -> Response[str]:
    """Tell how far a replay is."""
    request = admin_edge.decode(app.current_event)
    return v2_webhooks.get_replay(subscription_id, replay, request, runtime.webhook_replays())


@app.delete("/v2/webhooks/<subscription_id>/replays/<replay>")
def delete_webhook_replay(subscription_id: str, replay: str) -> Response[str]:
    """Stop a replay."""
    return v2_webhooks.cancel_replay(subscription_id, replay, runtime.webhook_replays())


@app.get("/v2/enrollments")
def list_enrollments() -> Response[str]:
    """List the enrollments."""
    return v2.list_enrollments(admin_edge.decode(app.current_event), runtime.enrollment_service())


@app.get("/v2/enrollments/<enrollment_id>")
def get_enrollment(enrollment_id: str) -> Response[str]:
    """Tell of one enrollment."""
    return v2.get_enrollment(enrollment_id, admin_edge.decode(app.current_event), runtime.enrollment_service())


@app.post("/v2/app-uploads")
def post_app_upload() -> Response[str]:
    """Begin to upload a package."""
    return v2_apps.begin_upload(admin_edge.decode(app.current_event), runtime.apps())


@app.get("/v2/app-uploads/<upload_id>")
def get_app_upload(upload_id: str) -> Response[str]:
    """Tell how far an upload is."""
    return v2_apps.get_upload(upload_id, admin_edge.decode(app.current_event), runtime.apps())


@app.post("/v2/app-uploads/<upload_id>/finished")
def finish_app_upload(upload_id: str) -> Response[str]:
    """Look into what was uploaded."""
    return v2_apps.finish_upload(upload_id, admin_edge.decode(app.current_event), runtime.apps())


@app.get("/v2/apps")
def list_apps() -> Response[str]:
    """List the apps."""
    return v2_apps.list_apps(admin_edge.decode(app.current_event), runtime.apps())


@app.get("/v2/apps/<name>")
def get_app(name: str) -> Response[str]:
    """Tell of one app."""
    return v2_apps.get_app(name, admin_edge.decode(app.current_event), runtime.apps())


@app.delete("/v2/apps/<name>")
def delete_app(name: str) -> Response[str]:
    """Forget an app."""
    return v2_apps.delete_app(name, runtime.apps())


@app.get("/v2/blueprints")
def list_blueprints() -> Response[str]:
    """List the blueprints."""
    return v2_blueprints.list_blueprints(admin_edge.decode(app.current_event), runtime.blueprints())


@app.put("/v2/blueprints/<name>")
def put_blueprint(name: str) -> Response[str]:
    """Say what devices shall have."""
    request = admin_edge.decode(app.current_event)
    return v2_blueprints.put_blueprint(name, request, runtime.blueprints(), runtime.blueprint_jobs())


@app.get("/v2/blueprints/<name>")
def get_blueprint(name: str) -> Response[str]:
    """Tell of one blueprint."""
    return v2_blueprints.get_blueprint(name, admin_edge.decode(app.current_event), runtime.blueprints())


@app.delete("/v2/blueprints/<name>")
def delete_blueprint(name: str) -> Response[str]:
    """Forget a blueprint."""
    return v2_blueprints.delete_blueprint(name, admin_edge.decode(app.current_event), runtime.blueprints())


@app.post("/v2/blueprint-applications")
def post_blueprint_application() -> Response[str]:
    """Bring devices to blueprints."""
    return v2_blueprints.apply_blueprints(admin_edge.decode(app.current_event), runtime.blueprint_jobs())


@app.get("/v2/blueprint-applications/<job_id>")
def get_blueprint_application(job_id: str) -> Response[str]:
    """Tell how that is getting on."""
    return v2_blueprints.get_application(job_id, admin_edge.decode(app.current_event), runtime.blueprint_jobs())


@app.get("/v2/plans")
def list_plans() -> Response[str]:
    """Tell what devices are being brought to."""
    return v2_blueprints.list_plans(admin_edge.decode(app.current_event), runtime.plan_list())


@app.post("/v2/plans")
def post_plans() -> Response[str]:
    """Begin plans that need no blueprint."""
    return v2_inventory.start_plans(admin_edge.decode(app.current_event), runtime.builtin_plans())


@app.get("/v2/inventory")
def search_inventory() -> Response[str]:
    """Find devices by what they have told of themselves."""
    return v2_inventory.search_inventory(admin_edge.decode(app.current_event), runtime.inventory())


@app.get("/v2/enrollments/<enrollment_id>/inventory")
def get_inventory(enrollment_id: str) -> Response[str]:
    """Tell what is known of a device."""
    return v2_inventory.get_inventory(enrollment_id, admin_edge.decode(app.current_event), runtime.inventory())


@app.get("/v2/enrollments/<enrollment_id>/inventory-changes")
def get_inventory_changes(enrollment_id: str) -> Response[str]:
    """Tell how that changed."""
    request = admin_edge.decode(app.current_event)
    return v2_inventory.get_inventory_changes(enrollment_id, request, runtime.inventory())


@app.get("/v2/escrow/<owner>")
def list_escrow(owner: str) -> Response[str]:
    """List which keys and PINs of a device are escrowed."""
    return v2_inventory.list_escrow(owner, admin_edge.decode(app.current_event), runtime.escrow())


@app.post("/v2/escrow/<owner>/<kind>/reveal")
def reveal_secret(owner: str, kind: str) -> Response[str]:
    """Read one."""
    return v2_inventory.reveal(owner, kind, admin_edge.decode(app.current_event), runtime.escrow())


@app.get("/v2/device-attributes")
def list_device_attributes() -> Response[str]:
    """List what is said of devices."""
    return v2_blueprints.list_attributes(admin_edge.decode(app.current_event), runtime.device_attributes())


@app.put("/v2/device-attributes/<serial_number>")
def put_device_attributes(serial_number: str) -> Response[str]:
    """Give a device tags and values."""
    request = admin_edge.decode(app.current_event)
    return v2_blueprints.put_attributes(serial_number, request, runtime.device_attributes())


@app.get("/v2/device-attributes/<serial_number>")
def get_device_attributes(serial_number: str) -> Response[str]:
    """Tell what is said of a device."""
    request = admin_edge.decode(app.current_event)
    return v2_blueprints.get_attributes(serial_number, request, runtime.device_attributes())


@app.delete("/v2/device-attributes/<serial_number>")
def delete_device_attributes(serial_number: str) -> Response[str]:
    """Say nothing of a device any more."""
    return v2_blueprints.delete_attributes(serial_number, runtime.device_attributes())


@app.put("/v2/managed-users/<name>")
def put_managed_user(name: str) -> Response[str]:
    """Let somebody log in on Macs."""
    return v2_checkin.put_managed_user(name, admin_edge.decode(app.current_event), runtime.managed_users())


@app.get("/v2/managed-users")
def list_managed_users() -> Response[str]:
    """List who may log in on Macs."""
    return v2_checkin.list_managed_users(admin_edge.decode(app.current_event), runtime.managed_users())


@app.delete("/v2/managed-users/<name>")
def delete_managed_user(name: str) -> Response[str]:
    """Let somebody log in no more."""
    return v2_checkin.delete_managed_user(name, runtime.managed_users())


@app.put("/v2/token-sources/<service_type>")
def put_token_source(service_type: str) -> Response[str]:
    """Have a server make tokens."""
    return v2_checkin.put_token_source(service_type, admin_edge.decode(app.current_event), runtime.token_sources())


@app.get("/v2/token-sources")
def list_token_sources() -> Response[str]:
    """List the servers that make tokens."""
    return v2_checkin.list_token_sources(admin_edge.decode(app.current_event), runtime.token_sources())


@app.delete("/v2/token-sources/<service_type>")
def delete_token_source(service_type: str) -> Response[str]:
    """Ask a server for no more tokens."""
    return v2_checkin.delete_token_source(service_type, runtime.token_sources())


@app.put("/v2/return-to-service-profiles/<name>")
def put_return_to_service_profile(name: str) -> Response[str]:
    """Store a profile for devices that return to service."""
    request = admin_edge.decode(app.current_event)
    return v2_checkin.put_return_to_service_profile(name, request, runtime.return_to_service_profiles())


@app.get("/v2/return-to-service-profiles")
def list_return_to_service_profiles() -> Response[str]:
    """List the profiles for devices that return to service."""
    request = admin_edge.decode(app.current_event)
    return v2_checkin.list_return_to_service_profiles(request, runtime.return_to_service_profiles())


@app.delete("/v2/return-to-service-profiles/<name>")
def delete_return_to_service_profile(name: str) -> Response[str]:
    """Forget a profile for devices that return to service."""
    return v2_checkin.delete_return_to_service_profile(name, runtime.return_to_service_profiles())


@app.put("/v2/ddm-keys")
def put_ddm_keys() -> Response[str]:
    """Set the keys that are shared with another server for declarative management."""
    return v2_checkin.put_ddm_keys(admin_edge.decode(app.current_event), runtime.ddm_keys())


@app.get("/v2/ddm-keys")
def get_ddm_keys() -> Response[str]:
    """Say in which directions declarative management is signed."""
    return v2_checkin.get_ddm_keys(admin_edge.decode(app.current_event), runtime.ddm_keys())


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer API Gateway's event."""
    return app.resolve(event, context)
