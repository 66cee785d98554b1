"""Administrators: MicroMDM's and NanoMDM's APIs, and of PicoMDM's own: queues, results and blocked devices.

Also scripts that know a password instead of SigV4 come here, where the deployment lets them.
"""

import os
from typing import Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.http import (
    admin_edge,
    administrators,
    etags,
    idempotency,
    micromdm,
    micromdm_apps,
    micromdm_blueprints,
    micromdm_dep,
    micromdm_devices,
    micromdm_resources,
    nanocmd,
    nanodep,
    nanomdm,
    nanomdm_queries,
    v2,
    v2_checkin,
    v2_commands,
    v2_pushes,
)
from mdmlib.http.admin_edge import Dialect
from mdmlib.observability import logger

app = APIGatewayHttpResolver()
admin_edge.register_error_handlers(app)
admin_edge.refuse_long_names(app)
idempotency.remember_answers(app, runtime.idempotent_requests)
etags.answer_conditionally(app)

PUSH: Final = {Dialect.MICROMDM: micromdm.push, Dialect.NANOMDM: nanomdm.push}
PROXIED: Final = ["GET", "POST", "PUT", "DELETE"]


@app.post("/v1/commands")
def post_command() -> Response[str]:
    """Queue a command."""
    return micromdm.new_command(admin_edge.decode(app.current_event), runtime.enqueue_service())


@app.route("/v1/commands/<udid>", method=["POST", "PUT"])
def post_raw_command(udid: str) -> Response[str]:
    """Queue a command that is a property list."""
    return micromdm_devices.new_raw_command(udid, admin_edge.decode(app.current_event), runtime.enqueue_service())


@app.get("/v1/commands/<udid>")
def list_raw_commands(udid: str) -> Response[str]:
    """List what waits for a device."""
    return micromdm_devices.list_commands(udid, runtime.enrollment_service())


@app.delete("/v1/commands/<udid>")
def clear_raw_commands(udid: str) -> Response[str]:
    """Drop what waits for a device."""
    return micromdm_devices.clear_commands(udid, runtime.command_queues())


@app.get("/push/<udid>")
def push_device(udid: str) -> Response[str]:
    """Wake a device."""
    return micromdm.push(udid, admin_edge.decode(app.current_event), runtime.enqueue_service())


@app.post("/v1/devices")
def list_devices() -> Response[str]:
    """List the devices."""
    request = admin_edge.decode(app.current_event)
    return micromdm_devices.list_devices(request, runtime.device_listing(), runtime.ade_devices())


@app.delete("/v1/devices")
def remove_devices() -> Response[str]:
    """Forget devices."""
    return micromdm_devices.remove_devices(admin_edge.decode(app.current_event), runtime.removal())


@app.post("/v1/devices/<udid>/block")
def block_device(udid: str) -> Response[str]:
    """Block a device."""
    return micromdm_devices.block(udid, runtime.blocking(), runtime.enqueue_service())


@app.post("/v1/devices/<udid>/unblock")
def unblock_device(udid: str) -> Response[str]:
    """Unblock a device."""
    return micromdm_devices.unblock(udid, runtime.blocking())


@app.put("/v1/profiles")
def put_profile() -> Response[str]:
    """Store a profile."""
    return micromdm_resources.put_profile(admin_edge.decode(app.current_event), runtime.stored_profiles())


@app.post("/v1/profiles")
def list_profiles() -> Response[str]:
    """List the stored profiles."""
    return micromdm_resources.list_profiles(admin_edge.decode(app.current_event), runtime.stored_profiles())


@app.delete("/v1/profiles")
def delete_profiles() -> Response[str]:
    """Forget stored profiles."""
    return micromdm_resources.delete_profiles(admin_edge.decode(app.current_event), runtime.stored_profiles())


@app.put("/v1/users")
def put_user() -> Response[str]:
    """Store a user."""
    return micromdm_resources.put_user(admin_edge.decode(app.current_event), runtime.micromdm_users())


@app.post("/v1/users")
def list_users() -> Response[str]:
    """List the users."""
    return micromdm_resources.list_users(admin_edge.decode(app.current_event), runtime.micromdm_users())


@app.delete("/v1/users")
def delete_users() -> Response[str]:
    """Forget stored users."""
    return micromdm_resources.delete_users(admin_edge.decode(app.current_event), runtime.micromdm_users())


@app.put("/v1/blueprints")
def put_blueprint() -> Response[str]:
    """Store a blueprint."""
    request = admin_edge.decode(app.current_event)
    return micromdm_blueprints.put_blueprint(request, runtime.blueprints(), runtime.blueprint_jobs())


@app.post("/v1/blueprints")
def list_blueprints() -> Response[str]:
    """List the blueprints."""
    return micromdm_blueprints.list_blueprints(admin_edge.decode(app.current_event), runtime.blueprints())


@app.delete("/v1/blueprints")
def delete_blueprints() -> Response[str]:
    """Forget blueprints."""
    return micromdm_blueprints.delete_blueprints(admin_edge.decode(app.current_event), runtime.blueprints())


@app.put("/v1/apps")
def put_app() -> Response[str]:
    """Store an app."""
    return micromdm_apps.put_app(micromdm_apps.decode(app.current_event), runtime.apps())


@app.post("/v1/apps")
def list_apps() -> Response[str]:
    """List the apps."""
    return micromdm_apps.list_apps(admin_edge.decode(app.current_event), runtime.apps())


@app.post("/v1/workflow/<name>/start")
def start_workflow(name: str) -> Response[str]:
    """Start a workflow."""
    return nanocmd.start_workflow(name, admin_edge.decode(app.current_event), runtime.nanocmd_workflows())


@app.get("/v1/event/<name>")
def get_workflow_event(name: str) -> Response[str]:
    """Tell what begins when something happens to a device."""
    return nanocmd.get_event(name, runtime.workflow_events())


@app.put("/v1/event/<name>")
def put_workflow_event(name: str) -> Response[str]:
    """Let a workflow begin when something happens to a device."""
    return nanocmd.put_event(name, admin_edge.decode(app.current_event), runtime.workflow_events())


@app.delete("/v1/event/<name>")
def delete_workflow_event(name: str) -> Response[str]:
    """Let it begin no more."""
    return nanocmd.delete_event(name, runtime.workflow_events())


@app.get("/v1/fvenable/profiletemplate")
def get_filevault_template() -> Response[bytes]:
    """Return the profile that turns FileVault on."""
    return nanocmd.filevault_template(runtime.filevault())


@app.get("/v1/profile/<name>")
def get_named_profile(name: str) -> Response[bytes]:
    """Return a profile."""
    return nanocmd.get_profile(name, runtime.named_profiles())


@app.put("/v1/profile/<name>")
def put_named_profile(name: str) -> Response[str]:
    """Store a profile under a name."""
    return nanocmd.put_profile(name, admin_edge.decode(app.current_event), runtime.named_profiles())


@app.delete("/v1/profile/<name>")
def delete_named_profile(name: str) -> Response[str]:
    """Forget a profile."""
    return nanocmd.delete_profile(name, runtime.named_profiles())


@app.get("/v1/profiles")
def list_named_profiles() -> Response[str]:
    """List the profiles that have names."""
    return nanocmd.list_profiles(admin_edge.decode(app.current_event), runtime.named_profiles())


@app.get("/v1/cmdplan/<name>")
def get_command_plan(name: str) -> Response[str]:
    """Return a list of profiles and apps."""
    return nanocmd.get_command_plan(name, runtime.named_profiles())


@app.put("/v1/cmdplan/<name>")
def put_command_plan(name: str) -> Response[str]:
    """Store a list of profiles and apps."""
    return nanocmd.put_command_plan(name, admin_edge.decode(app.current_event), runtime.named_profiles())


@app.get("/v1/inventory")
def get_inventory() -> Response[str]:
    """Tell what is known of devices."""
    return nanocmd.get_inventory(admin_edge.decode(app.current_event), runtime.inventory())


@app.get("/inventory")
def get_inventory_of_old() -> Response[str]:
    """Tell what is known of devices, at the address that NanoCMD has it."""
    return nanocmd.get_inventory(admin_edge.decode(app.current_event), runtime.inventory())


@app.put("/v1/config/certificate")
def put_config_certificate() -> Response[str]:
    """Store a push certificate and its key."""
    request = admin_edge.decode(app.current_event)
    return micromdm_resources.put_push_certificate(request, runtime.push_certificates())


@app.get("/v1/config/certificate")
def get_config_certificate() -> Response[str]:
    """Return the push certificate."""
    return micromdm_resources.get_push_certificate(runtime.push_certificates())


@app.get("/v1/dep-tokens")
def get_dep_tokens() -> Response[str]:
    """Return the tokens of Apple's portal, and the certificate for it."""
    return micromdm_dep.get_tokens(admin_edge.decode(app.current_event), runtime.ade_servers())


@app.put("/v1/dep-tokens")
def put_dep_token() -> Response[str]:
    """Import a token of Apple's portal."""
    return micromdm_dep.put_token(admin_edge.decode(app.current_event), runtime.ade_servers(), runtime.ade_syncs())


@app.get("/v1/dep/account")
def get_dep_account() -> Response[str]:
    """Ask Apple for the organization."""
    return micromdm_dep.get_account(admin_edge.decode(app.current_event), runtime.ade_servers())


@app.post("/v1/dep/devices")
def get_dep_devices() -> Response[str]:
    """Ask Apple for devices."""
    request = admin_edge.decode(app.current_event)
    return micromdm_dep.get_devices(request, runtime.ade_servers(), runtime.ade_assignments())


@app.put("/v1/dep/profiles")
def define_dep_profile() -> Response[str]:
    """Have Apple know a profile."""
    request = admin_edge.decode(app.current_event)
    return micromdm_dep.define_profile(request, runtime.ade_servers(), runtime.ade_profiles())


@app.post("/v1/dep/profiles")
def get_dep_profile() -> Response[str]:
    """Ask Apple for a profile."""
    return micromdm_dep.get_profile(admin_edge.decode(app.current_event), runtime.ade_servers())


@app.delete("/v1/dep/profiles")
def remove_dep_profiles() -> Response[str]:
    """Take their profile away from devices."""
    request = admin_edge.decode(app.current_event)
    return micromdm_dep.remove_profiles(request, runtime.ade_servers(), runtime.ade_assignments())


@app.post("/v1/dep/assign")
def assign_dep_profile() -> Response[str]:
    """Give devices a profile."""
    request = admin_edge.decode(app.current_event)
    return micromdm_dep.assign_profile(request, runtime.ade_servers(), runtime.ade_assignments())


@app.post("/v1/dep/syncnow")
def sync_dep_now() -> Response[str]:
    """Have Apple's list of devices read now."""
    return micromdm_dep.sync_now(admin_edge.decode(app.current_event), runtime.ade_servers(), runtime.ade_syncs())


@app.post("/v1/dep/autoassigners")
def put_dep_autoassigner() -> Response[str]:
    """Give all devices a profile."""
    request, rules = admin_edge.decode(app.current_event), runtime.ade_assignment_rules()
    return micromdm_dep.put_autoassigner(request, runtime.ade_servers(), rules, runtime.ade_syncs())


@app.get("/v1/dep/autoassigners")
def list_dep_autoassigners() -> Response[str]:
    """Show the profile that all devices get."""
    request = admin_edge.decode(app.current_event)
    return micromdm_dep.list_autoassigners(request, runtime.ade_servers(), runtime.ade_assignment_rules())


@app.delete("/v1/dep/autoassigners")
def delete_dep_autoassigner() -> Response[str]:
    """Give it to no more devices."""
    request = admin_edge.decode(app.current_event)
    return micromdm_dep.delete_autoassigner(request, runtime.ade_servers(), runtime.ade_assignment_rules())


@app.get("/v1/dep_names")
def list_dep_names() -> Response[str]:
    """List the names of Apple's servers."""
    return nanodep.list_names(admin_edge.decode(app.current_event), runtime.ade_servers())


@app.get("/v1/tokenpki/<name>")
def get_token_pki(name: str) -> Response[str]:
    """Return the certificate for Apple's portal."""
    return nanodep.get_certificate(name, admin_edge.decode(app.current_event), runtime.ade_servers())


@app.put("/v1/tokenpki/<name>")
def put_token_pki(name: str) -> Response[str]:
    """Import a token of Apple's portal."""
    request = admin_edge.decode(app.current_event)
    return nanodep.import_token_file(name, request, runtime.ade_servers(), runtime.ade_syncs())


@app.get("/v1/tokens/<name>")
def get_dep_server_token(name: str) -> Response[str]:
    """Return a token in clear."""
    return nanodep.get_token(name, runtime.ade_servers())


@app.put("/v1/tokens/<name>")
def put_dep_server_token(name: str) -> Response[str]:
    """Take a token in clear."""
    request = admin_edge.decode(app.current_event)
    return nanodep.put_token(name, request, runtime.ade_servers(), runtime.ade_syncs())


@app.get("/v1/config/<name>")
def get_dep_server_config(name: str) -> Response[str]:
    """Say where a server is asked for."""
    return nanodep.get_config(name, runtime.ade_servers())


@app.put("/v1/config/<name>")
def put_dep_server_config(name: str) -> Response[str]:
    """Ask for a server elsewhere."""
    return nanodep.put_config(name, admin_edge.decode(app.current_event), runtime.ade_servers())


@app.get("/v1/assigner/<name>")
def get_assigner(name: str) -> Response[str]:
    """Say which profile a server's devices get."""
    return nanodep.get_assigner(name, runtime.ade_servers(), runtime.ade_assignment_rules())


@app.put("/v1/assigner/<name>")
def put_assigner(name: str) -> Response[str]:
    """Give a server's devices a profile."""
    request = admin_edge.decode(app.current_event)
    rules, syncs = runtime.ade_assignment_rules(), runtime.ade_syncs()
    return nanodep.put_assigner(name, request, runtime.ade_servers(), rules, syncs)


@app.get("/v1/maidjwt/<name>")
def get_maid_token(name: str) -> Response[str]:
    """Make a token of com.apple.maid."""
    request = admin_edge.decode(app.current_event)
    return nanodep.get_maid_token(name, request, runtime.ade_servers(), runtime.new_uuid)


@app.get("/v1/bypasscode")
def get_bypass_code() -> Response[str]:
    """Make or read a bypass code of Activation Lock."""
    return nanodep.get_bypass_code(admin_edge.decode(app.current_event), os.urandom)


@app.route("/proxy/<name>/<endpoint>", method=PROXIED)
def proxy_to_apple(name: str, endpoint: str) -> Response[bytes]:
    """Pass a request on to Apple."""
    return nanodep.proxy(name, endpoint, app.current_event, runtime.ade_servers())


@app.route("/proxy/<name>/<endpoint>/<action>", method=PROXIED)
def proxy_to_apple_further(name: str, endpoint: str, action: str) -> Response[bytes]:
    """Pass a request on to Apple, whose paths have one or two parts."""
    return nanodep.proxy(name, f"{endpoint}/{action}", app.current_event, runtime.ade_servers())


@app.post("/v1/challenge")
def post_challenge() -> Response[str]:
    """Make a SCEP challenge for one identity."""
    return micromdm.new_challenge(runtime.scep_challenges(), runtime.certificate_authority())


@app.get("/version")
def get_version() -> Response[str]:
    """Say which release this is."""
    return nanomdm.version()


@app.put("/v1/pushcert")
def put_push_certificate() -> Response[str]:
    """Store a push certificate and its key."""
    return nanomdm.put_push_certificate(admin_edge.decode(app.current_event), runtime.push_certificates())


@app.get("/v1/pushcert")
def get_push_certificate() -> Response[str]:
    """Say until when a topic's push certificate is good."""
    return nanomdm.get_push_certificate(admin_edge.decode(app.current_event), runtime.push_certificates())


@app.route("/v1/enqueue/<enrollment_ids>", method=["PUT", "POST"])
def enqueue(enrollment_ids: str) -> Response[str]:
    """Queue a command that is a property list for enrollments."""
    return nanomdm.enqueue(enrollment_ids, admin_edge.decode(app.current_event), runtime.enqueue_service())


@app.post("/v1/escrowkeyunlock")
def unlock_with_escrow_key() -> Response[bytes]:
    """Have Apple end a device's Activation Lock."""
    return nanomdm.unlock_with_escrow_key(admin_edge.decode(app.current_event), runtime.escrow_key_unlock())


@app.post("/v1/enrollments/query")
def query_enrollments() -> Response[str]:
    """Find enrollments."""
    return nanomdm_queries.query_enrollments(admin_edge.decode(app.current_event), runtime.enrollment_query())


@app.get("/v1/queue/<enrollment_id>")
def get_queue(enrollment_id: str) -> Response[str]:
    """List what waits for an enrollment."""
    request = admin_edge.decode(app.current_event)
    return nanomdm_queries.list_queue(enrollment_id, request, runtime.enrollment_service())


@app.delete("/v1/queue/<enrollment_ids>")
def delete_queue(enrollment_ids: str) -> Response[str]:
    """Drop what waits for enrollments."""
    return nanomdm_queries.clear_queue(enrollment_ids, runtime.command_queues())


@app.route("/v1/push/<enrollment_ids>", method=["GET", "POST", "PUT"])
def push(enrollment_ids: str) -> Response[str]:
    """Wake enrollments."""
    request = admin_edge.decode(app.current_event)
    return PUSH[request.dialect](enrollment_ids, request, runtime.enqueue_service())


@app.post("/v2/pushes")
def post_pushes() -> Response[str]:
    """Wake many."""
    return v2_pushes.create_push(admin_edge.decode(app.current_event), runtime.push_jobs())


@app.get("/v2/pushes/<job_id>")
def get_pushes(job_id: str) -> Response[str]:
    """Tell how that is getting on."""
    return v2_pushes.get_push(job_id, admin_edge.decode(app.current_event), runtime.push_jobs())


@app.put("/migration")
def put_migration() -> Response[str]:
    """Take in a check-in message of another server."""
    return nanomdm.migrate(admin_edge.decode(app.current_event), runtime.migration())


@app.post("/v2/commands")
def post_commands() -> Response[str]:
    """Queue a command for many."""
    request = admin_edge.decode(app.current_event)
    return v2_commands.queue_command(request, runtime.enqueue_service(), runtime.command_jobs)


@app.get("/v2/command-jobs")
def get_command_jobs() -> Response[str]:
    """List the jobs."""
    return v2_commands.list_command_jobs(admin_edge.decode(app.current_event), runtime.command_jobs())


@app.get("/v2/command-jobs/<job_id>")
def get_command_job(job_id: str) -> Response[str]:
    """Tell how a job is getting on."""
    return v2_commands.get_command_job(job_id, admin_edge.decode(app.current_event), runtime.command_jobs())


@app.delete("/v2/command-jobs/<job_id>")
def delete_command_job(job_id: str) -> Response[str]:
    """Stop a job."""
    return v2_commands.cancel_command_job(job_id, admin_edge.decode(app.current_event), runtime.command_jobs())


@app.get("/v2/enrollments/<enrollment_id>/commands")
def get_commands(enrollment_id: str) -> Response[str]:
    """List what waits for an enrollment."""
    return v2.list_commands(enrollment_id, admin_edge.decode(app.current_event), runtime.enrollment_service())


@app.delete("/v2/enrollments/<enrollment_id>/commands")
def delete_commands(enrollment_id: str) -> Response[str]:
    """Drop what waits for an enrollment."""
    return v2.clear_commands(enrollment_id, admin_edge.decode(app.current_event), runtime.command_queues())


@app.delete("/v2/enrollments/<enrollment_id>/commands/<command_uuid>")
def delete_command(enrollment_id: str, command_uuid: str) -> Response[str]:
    """Take back one command that waits for an enrollment."""
    request = admin_edge.decode(app.current_event)
    return v2.cancel_command(enrollment_id, command_uuid, request, runtime.command_queues())


@app.get("/v2/enrollments/<enrollment_id>/results")
def get_results(enrollment_id: str) -> Response[str]:
    """List what an enrollment reported."""
    return v2.list_results(enrollment_id, admin_edge.decode(app.current_event), runtime.enrollment_service())


@app.put("/v2/enrollments/<enrollment_id>/block")
def put_block(enrollment_id: str) -> Response[str]:
    """Block a device."""
    request = admin_edge.decode(app.current_event)
    return v2_checkin.block_device(enrollment_id, request, runtime.blocking(), runtime.enqueue_service())


@app.delete("/v2/enrollments/<enrollment_id>/block")
def delete_block(enrollment_id: str) -> Response[str]:
    """Unblock a device."""
    return v2_checkin.unblock_device(enrollment_id, runtime.blocking())


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer API Gateway's event."""
    return administrators.resolve(
        app, event, context, admin_api_id=runtime.settings().admin_api_id, api_keys=runtime.api_keys
    )
