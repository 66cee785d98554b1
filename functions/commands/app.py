"""Administrators: commands, their queues and results, pushes, blocked devices, and enrollments of other servers."""

from typing import Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.http import admin_edge, micromdm, nanomdm, v2, v2_checkin, v2_commands, v2_pushes
from mdmlib.http.admin_edge import Dialect
from mdmlib.observability import logger

app = APIGatewayHttpResolver()
admin_edge.register_error_handlers(app)

PUSH: Final = {Dialect.MICROMDM: micromdm.push, Dialect.NANOMDM: nanomdm.push}


@app.post("/v1/commands")
def post_command() -> Response[str]:
    """Queue a command."""
    return micromdm.new_command(admin_edge.decode(app.current_event), runtime.enqueue_service())


@app.route("/v1/push/<enrollment_ids>", method=["GET", "POST"])
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
    return app.resolve(event, context)
