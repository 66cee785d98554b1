"""``picomdm ade sync``, ``picomdm ade devices``, ``picomdm ade rules``: Apple's lists of devices."""

import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, Operator, operator_of
from picomdm.durations import seconds_of
from picomdm.files import read_lines

rules: Final = typer.Typer(help="Rules that say which profile devices get.", no_args_is_help=True)

_SERVERS: Final = "/v2/ade-servers"
_DEVICES: Final = "/v2/ade-devices"
_RULES: Final = "/v2/ade-assignment-rules"
_LOOK_SECONDS: Final = 1.0
_RUNNING: Final = "running"


def sync(
    context: typer.Context,
    *,
    name: Annotated[str | None, typer.Argument(help="The server; all, if none is given.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say how far it is.")] = False,
    wait: Annotated[str | None, typer.Option(help="Wait so long for its end, such as 5m.")] = None,
    _json: JSON = False,
) -> None:
    """Read Apple's list of devices now, and give devices their profiles."""
    operator = operator_of(context)
    names = [name] if name else [each["name"] for each in operator.api.entries(_SERVERS, "ade_servers")]
    found = [_look(operator, each) if status else _ask(operator, each) for each in names]
    until = time.monotonic() + (seconds_of(wait) if wait else 0)
    with operator.terminal.progress("Reading Apple's list of devices …"):
        while any(each["state"] == _RUNNING for each in found) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            found = [_look(operator, each) for each in names]
    operator.terminal.answer({"ade_syncs": found}, lambda: _show_syncs(operator, found))
    if any(each["state"] == "failed" for each in found):
        raise typer.Exit(1)


def devices(
    context: typer.Context,
    *,
    serial_number: Annotated[str | None, typer.Argument(help="Show what is known of this one.")] = None,
    server: Annotated[str | None, typer.Option(help="Only those of this server.")] = None,
    state: Annotated[str | None, typer.Option(help="present, or deleted: those that left Apple's list.")] = None,
    models: Annotated[list[str] | None, typer.Option("--model", help="Only this model; may be repeated.")] = None,
    families: Annotated[
        list[str] | None, typer.Option("--family", help="iPhone, iPad, Mac, …; may be repeated.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--assignment", help="none, pending, assigned, other; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1_000,
    _json: JSON = False,
) -> None:
    """List the devices in Apple's lists."""
    operator = operator_of(context)
    if serial_number:
        _show_device(operator, operator.api.get(f"{_DEVICES}/{path_part(serial_number)}"))
        return
    query = {
        "server": server,
        "state": state,
        "model": ",".join(models or ()),
        "device_family": ",".join(families or ()),
        "assignment": ",".join(assignments or ()),
    }
    given = {name: value for name, value in query.items() if value}
    found = list(islice(operator.api.entries(_DEVICES, "ade_devices", **given), limit + 1))
    more, found = len(found) > limit, found[:limit]

    def show() -> None:
        operator.terminal.table(
            ("SERIAL", "SERVER", "MODEL", "STATE", "PROFILE", "ASSIGNMENT", "AT APPLE"),
            [
                (
                    each["serial_number"],
                    each["server"],
                    each["model"],
                    each["state"],
                    each["wanted"]["profile"] or each["wanted"]["profile_uuid"],
                    _assignment(each),
                    each["profile_status"],
                )
                for each in found
            ],
            empty="No devices, as far as Apple's lists were read: picomdm ade sync",
        )
        if more:
            operator.terminal.note(f"[dim]There are more than these {limit}; see --limit.[/dim]")

    operator.terminal.answer({"ade_devices": found, "more": more}, show)


@rules.command("list")
def list_rules(context: typer.Context, *, _json: JSON = False) -> None:
    """List the rules; of those that fit a device, the most precise one decides."""
    operator = operator_of(context)
    found = list(operator.api.entries(_RULES, "ade_assignment_rules"))
    operator.terminal.answer(
        {"ade_assignment_rules": found},
        lambda: operator.terminal.table(
            ("RULE", "SERVER", "FOR", "PROFILE"),
            [(each["name"], each["server"], _for(each), _profile(each)) for each in found],
            empty="There are no rules: devices get the profile that somebody gives them.",
        ),
    )


@rules.command("set")
def set_rule(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="Of the rule; one of this name is replaced.")],
    profile: Annotated[str | None, typer.Option(help="The profile, by its name here.")] = None,
    profile_uuid: Annotated[str | None, typer.Option(help="Or by Apple's UUID of it, with --server.")] = None,
    server: Annotated[str | None, typer.Option(help="Only for devices of this server.")] = None,
    serials: Annotated[list[str] | None, typer.Option("--serial", help="For this device; may be repeated.")] = None,
    serials_file: Annotated[Path | None, typer.Option(help="For those of a text file, one in each line.")] = None,
    models: Annotated[list[str] | None, typer.Option("--model", help="For this model; may be repeated.")] = None,
    families: Annotated[
        list[str] | None, typer.Option("--family", help="For iPhone, iPad, Mac, …; may be repeated.")
    ] = None,
    _json: JSON = False,
) -> None:
    """Say which profile devices get; without a profile they are left as they are."""
    operator = operator_of(context)
    document = {
        "server": server,
        "serial_numbers": [*(serials or []), *(read_lines(serials_file) if serials_file else [])] or None,
        "models": models or None,
        "device_families": families or None,
        "profile": profile,
        "profile_uuid": profile_uuid,
    }
    stored = operator.api.request("PUT", f"{_RULES}/{path_part(name)}", document=document, repeatable=True)
    operator.terminal.answer(
        stored,
        lambda: operator.terminal.facts(
            {"rule": stored["name"], "server": stored["server"], "for": _for(stored), "profile": _profile(stored)}
        ),
    )


@rules.command("delete")
def delete_rule(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="As `picomdm ade rules list` shows it.")],
    _json: JSON = False,
) -> None:
    """Forget a rule. Devices keep their profile, unless another rule wants another one."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{_RULES}/{path_part(name)}", repeatable=True)
    operator.terminal.answer({"name": name, "deleted": True}, lambda: operator.terminal.say("Deleted."))


def _ask(operator: Operator, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = operator.api.request("POST", f"{_SERVERS}/{path_part(name)}/sync", repeatable=True)
    return answer


def _look(operator: Operator, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = operator.api.get(f"{_SERVERS}/{path_part(name)}/sync")
    return answer


def _show_syncs(operator: Operator, found: list[dict[str, Any]]) -> None:
    terminal = operator.terminal
    terminal.table(
        ("SERVER", "STATE", "LAST READ", "DEVICES", "ASSIGNED", "POSTPONED", "PROBLEM"),
        [
            (
                each["name"],
                each["state"],
                terminal.ago(each["synced_at"]),
                each["devices"],
                each["assigned"],
                each["postponed"],
                each["problem"]["detail"] if each["problem"] else None,
            )
            for each in found
        ],
        empty="There are no servers of Apple Business or School Manager here.",
    )


def _show_device(operator: Operator, device: dict[str, Any]) -> None:
    terminal = operator.terminal
    told = {
        "serial number": device["serial_number"],
        "server": device["server"],
        "former servers": ", ".join(device["former_servers"]) or None,
        "state": device["state"],
        "left Apple's list": terminal.ago(device["deleted_at"]),
        "model": device["model"],
        "family": device["device_family"],
        "migration deadline": device["mdm_migration_deadline"],
        "profile": device["wanted"]["profile"] or device["wanted"]["profile_uuid"],
        "rule": device["wanted"]["rule"],
        "assignment": _assignment(device),
        "tried again": terminal.ago(device["retry_at"]),
        "profile at Apple": device["profile_uuid"],
        "status at Apple": device["profile_status"],
        "enrollments": ", ".join(f"{each['id']} ({each['state']})" for each in device["enrollments"]) or None,
    }
    terminal.answer(device, lambda: terminal.facts(told))


def _assignment(device: dict[str, Any]) -> str:
    return f"{device['assignment']} ({device['refusal']})" if device["refusal"] else str(device["assignment"])


def _for(rule: dict[str, Any]) -> str:
    lists = (("serial_numbers", "serial numbers"), ("models", "models"), ("device_families", "families"))
    for name, words in lists:
        if rule[name]:
            some = ", ".join(rule[name][:3])
            return f"{words} {some}" + (f" and {len(rule[name]) - 3} more" if len(rule[name]) > 3 else "")  # noqa: PLR2004
    return "all devices"


def _profile(rule: dict[str, Any]) -> str:
    return rule["profile"] or rule["profile_uuid"] or "none: they are left as they are"
