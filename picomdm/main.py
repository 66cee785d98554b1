"""The command line's beginning: global options, all commands, and the exit codes.

0: done. 1: refused by the server, or not reachable. 2: wrong usage.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version as version_of
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

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
    users,
    webhook_deliveries,
    webhooks,
)
from picomdm.context import JSON, Operator, operator_of
from picomdm.deployment import DEFAULT_STACK, Deployment
from picomdm.errors import CommandLineError

_PANELS: Final[Mapping[str, Sequence[str]]] = {
    "Devices": (
        "enrollments",
        "commands",
        "push",
        "inventory",
        "escrow",
        "device-attributes",
    ),
    "What devices shall have": ("blueprints", "plans", "profiles", "apps", "users"),
    "Enrollment": ("enroll", "enrollment-profile", "ade", "account-driven", "device-ca", "ca", "scep", "push-cert"),
    "Events": ("webhooks", "events"),
    "The deployment": (
        "doctor",
        "open",
        "queues",
        "redrive",
        "cost",
        "api-key",
        "export",
        "import",
        "migrate",
        "destroy",
        "contexts",
        "version",
    ),
}
"""How ``picomdm --help`` shows the commands, in this order."""


class _Commands(TyperGroup):
    """The commands, in the order of their panels."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer's click is private
        """Return the names of all commands; the hidden ones are the last."""
        shown = [name for names in _PANELS.values() for name in names]
        return shown + [name for name in super().list_commands(ctx) if name not in shown]


app: Final = typer.Typer(
    name="picomdm",
    cls=_Commands,
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
app.add_typer(users.app, name="users")
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


@app.command("version")
def show_version(context: typer.Context, *, _json: JSON = False) -> None:
    """Show the release of this command line and of the deployment."""
    operator = operator_of(context)
    deployed = operator.api.get("/version")
    here = version_of("picomdm")
    operator.terminal.answer(
        {"command_line": here, "deployment": deployed["version"]},
        lambda: operator.terminal.facts({"command line": here, "deployment": deployed["version"]}),
    )


_PANEL_OF: Final = {name: title for title, names in _PANELS.items() for name in names}
for _command in app.registered_commands:
    _command.rich_help_panel = _PANEL_OF.get(_command.name or "")
for _group in app.registered_groups:
    _group.rich_help_panel = _PANEL_OF.get(str(_group.name))


def _name_arguments(command: Any) -> None:  # noqa: ANN401 - typer's click is private
    """Have arguments called as the documentation calls them: typer would take the names of Python's parameters."""
    for inner in getattr(command, "commands", {}).values():
        _name_arguments(inner)
    for parameter in command.params:
        if parameter.param_type_name == "argument" and parameter.metavar is None:
            parameter.metavar = parameter.name.upper()


@cache
def _commands() -> Any:  # noqa: ANN401 - typer's click is private
    # Reading all commands from their signatures takes longer than most of them do.
    command = typer.main.get_command(app)
    _name_arguments(command)
    return command


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    operator = Operator()
    try:
        _commands().main(args=list(arguments), prog_name="picomdm", obj=operator)
    except CommandLineError as error:
        operator.terminal.failure(error)
        return error.exit_code
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
