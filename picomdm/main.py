"""The command line's beginning: global options, all commands, and the exit codes.

0: done. 1: refused by the server, or not reachable. 2: wrong usage.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version as version_of
from typing import Annotated, Final

import typer

from picomdm import (
    account_driven,
    ade,
    ade_assignments,
    ade_devices,
    ade_profiles,
    ade_servers,
    api_keys,
    apps,
    backup,
    blueprints,
    certificate_authorities,
    commands,
    contexts,
    cost,
    dashboard,
    device_attributes,
    device_authorities,
    doctor,
    enrollment_links,
    enrollment_profile,
    enrollments,
    events,
    inventory,
    migrate,
    plans,
    profiles,
    push_certificates,
    queues,
    scep,
    stack,
    webhook_deliveries,
    webhooks,
)
from picomdm.context import JSON, Operator, operator_of
from picomdm.deployment import DEFAULT_STACK, Deployment
from picomdm.errors import CommandLineError

app: Final = typer.Typer(
    name="picomdm",
    help="Operate a deployment of PicoMDM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(enrollment_links.app, name="enroll")
app.add_typer(account_driven.app, name="account-driven")
ade.app.add_typer(ade_servers.servers, name="servers")
ade.app.add_typer(ade_servers.token, name="token")
ade.app.add_typer(ade_servers.discovery, name="account-driven")
ade.app.add_typer(ade_profiles.app, name="profiles")
ade.app.command("account")(ade_servers.account)
ade.app.command("beta-tokens")(ade_servers.beta_tokens)
ade.app.command("assign")(ade_assignments.assign)
ade.app.command("unassign")(ade_assignments.unassign)
ade.app.command("disown")(ade_assignments.disown)
ade.app.command("lock")(ade_assignments.lock)
ade.app.command("bypass-code")(ade_assignments.bypass_code)
ade.app.command("unlock")(ade_assignments.unlock)
ade.app.command("sync")(ade_devices.sync)
ade.app.command("devices")(ade_devices.devices)
ade.app.add_typer(ade_devices.rules, name="rules")
app.add_typer(ade.app, name="ade")
app.add_typer(api_keys.app, name="api-key")
app.add_typer(apps.app, name="apps")
app.add_typer(blueprints.app, name="blueprints")
app.add_typer(blueprints.app, name="blueprint", hidden=True)
app.add_typer(certificate_authorities.app, name="ca")
app.add_typer(device_attributes.app, name="device-attributes")
app.add_typer(device_authorities.app, name="device-ca")
app.add_typer(enrollment_profile.app, name="enrollment-profile")
app.add_typer(inventory.app, name="inventory")
app.add_typer(inventory.escrow, name="escrow")
app.add_typer(plans.app, name="plans")
app.add_typer(push_certificates.app, name="push-cert")
app.add_typer(push_certificates.app, name="pushcert", hidden=True)
app.add_typer(scep.app, name="scep")
app.add_typer(commands.app, name="commands")
app.add_typer(commands.app, name="command", hidden=True)
app.add_typer(contexts.app, name="contexts")
app.add_typer(enrollments.app, name="enrollments")
app.add_typer(enrollments.app, name="device", hidden=True)
app.add_typer(profiles.app, name="profiles")
app.add_typer(migrate.app, name="migrate")
webhooks.app.command("test")(webhook_deliveries.try_out)
webhooks.app.command("redrive")(webhook_deliveries.redrive)
webhooks.app.command("replay")(webhook_deliveries.replay)
webhooks.app.command("replay-status")(webhook_deliveries.replay_status)
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(events.app, name="events")
app.add_typer(webhooks.app, name="webhook", hidden=True)
app.command("devices", hidden=True)(enrollments.list_enrollments)
app.command("results", hidden=True)(commands.results)
app.command("push")(enrollments.push)
app.command("open")(dashboard.open_dashboard)
app.command("queues")(queues.list_queues)
app.command("redrive")(queues.redrive)
app.command("cost")(cost.cost)
app.command("doctor")(doctor.doctor)
app.command("export")(backup.export)
app.command("import")(backup.import_)
app.command("destroy")(stack.destroy)


@app.callback()
def begin(
    context: typer.Context,
    *,
    context_name: Annotated[
        str | None,
        typer.Option(
            "--context",
            envvar="PICOMDM_CONTEXT",
            autocompletion=contexts.names,
            help="One of `picomdm contexts list`; else the one that is in use there.",
        ),
    ] = None,
    stack_name: Annotated[
        str | None,
        typer.Option("--stack", envvar="PICOMDM_STACK", help=f"The CloudFormation stack; else {DEFAULT_STACK}."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="The stack's region; else AWS_REGION or the profile's.")] = None,
    profile: Annotated[str | None, typer.Option(help="A profile of ~/.aws/config; else AWS_PROFILE.")] = None,
    admin_url: Annotated[
        str | None,
        typer.Option(
            envvar="PICOMDM_ADMIN_URL", help="The admin API's URL, instead of looking it up in the stack's outputs."
        ),
    ] = None,
) -> None:
    """Operate a deployment of PicoMDM."""

    def choose() -> Deployment:
        # Who names a stack or a URL means no context.
        known = contexts.Contexts.read() if context_name or not (stack_name or admin_url) else contexts.Contexts()
        name = context_name or known.current
        chosen = known.get(name) if name else contexts.Context()
        if chosen.url is None:
            given = {"stack": stack_name, "admin_url": admin_url, "region": region, "profile": profile}
            chosen = replace(chosen, **{option: value for option, value in given.items() if value})
        return chosen.deployment

    context.ensure_object(Operator).choose = choose


@app.command()
def version(context: typer.Context, *, _json: JSON = False) -> None:
    """Show the release of this command line and of the deployment."""
    operator = operator_of(context)
    deployed = operator.api.get("/version")
    here = version_of("picomdm")
    operator.terminal.answer(
        {"command_line": here, "deployment": deployed["version"]},
        lambda: operator.terminal.facts({"command line": here, "deployment": deployed["version"]}),
    )


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    operator = Operator()
    try:
        typer.main.get_command(app).main(args=list(arguments), prog_name="picomdm", obj=operator)
    except CommandLineError as error:
        operator.terminal.failure(error)
        return error.exit_code
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
