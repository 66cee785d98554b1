"""``picomdm migrate``: move a fleet here from MicroMDM or NanoMDM; devices notice nothing."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.context import JSON, Operator, operator_of
from picomdm.errors import CommandLineError, RefusedError, SetupError
from picomdm.files import read_file
from picomdm.migration import Found, LeftBehind, MigratedEnrollment
from picomdm.migration.bolt import BoltError
from picomdm.migration.micromdm import read_micromdm
from picomdm.migration.nanomdm import read_nanomdm

app: Final = typer.Typer(help="Move a fleet here from another server.", no_args_is_help=True)

_WORKERS: Final = 8

DryRun = Annotated[bool, typer.Option("--dry-run", help="Read everything, move nothing, and say what would be.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Take the other server's word for devices that are enrolled here, too.")
]


@app.command()
def micromdm(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="MicroMDM's database, as GET /boltbackup gives it.")],
    topic: Annotated[str | None, typer.Option(help="Of its push certificate; else the deployment's only one.")] = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    _json: JSON = False,
) -> None:
    """Move the devices of a MicroMDM server."""
    operator = operator_of(context)
    try:
        found = list(read_micromdm(read_file(file), topic=topic or _only_topic(operator)))
    except BoltError as error:
        raise SetupError(f"{file} cannot be read: {error}", code="database_unreadable") from error
    _move(operator, found, dry_run=dry_run, overwrite=overwrite)


@app.command()
def nanomdm(
    context: typer.Context,
    *,
    database_url: Annotated[
        str,
        typer.Argument(
            envvar="NANOMDM_DATABASE_URL",
            help="Such as mysql+pymysql://user:password@host/nanomdm, or postgresql+psycopg://…",
        ),
    ],
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    _json: JSON = False,
) -> None:
    """Move the enrollments of a NanoMDM server that has an SQL database. From others nano2nano moves them."""
    _move(operator_of(context), list(read_nanomdm(database_url)), dry_run=dry_run, overwrite=overwrite)


def _only_topic(operator: Operator) -> str:
    topics = [entry["topic"] for entry in operator.api.entries("/v2/push-certificates", "push_certificates")]
    if len(topics) != 1:
        raise SetupError(
            "Say for which --topic the devices enrolled: this deployment has "
            f"{len(topics) or 'no'} push certificate{'s' if topics else ''}. Upload the other server's one first.",
            code="topic_unknown",
        )
    return str(topics[0])


def _move(operator: Operator, found: Iterable[Found], *, dry_run: bool, overwrite: bool) -> None:
    enrollments = [each for each in found if isinstance(each, MigratedEnrollment)]
    left = [each for each in found if isinstance(each, LeftBehind)]
    moved: list[str] = []
    if dry_run:
        moved = [each.id for each in enrollments]
    else:
        total = len(enrollments)
        with operator.terminal.progress(f"Moving {total} enrollments …") as tell:
            # Users' channels belong to their devices, which have to be there before them.
            for group in (
                [each for each in enrollments if each.parent is None],
                [each for each in enrollments if each.parent is not None],
            ):
                with ThreadPoolExecutor(_WORKERS) as pool:
                    for each, problem in zip(
                        group, pool.map(lambda one: _bring(operator, one, overwrite=overwrite), group), strict=True
                    ):
                        if problem:
                            left.append(LeftBehind(each.id, problem))
                        else:
                            moved.append(each.id)
                        tell(f"Moving enrollments: {len(moved) + len(left)} of {total} …")
    unproven = sum(each.certificate_hash is None and each.parent is None for each in enrollments)
    _report(operator, moved, left, unproven=unproven, dry_run=dry_run)


def _bring(operator: Operator, enrollment: MigratedEnrollment, *, overwrite: bool) -> str | None:
    """Bring an enrollment's messages; return why it was not taken, or None."""
    for message in enrollment.messages:
        query = {"overwrite": "1"} if overwrite else {}
        if message.message_type == "Authenticate" and enrollment.certificate_hash:
            query["certificate_hash"] = enrollment.certificate_hash
        try:
            operator.api.request("PUT", "/migration", body=message.body, query=query, repeatable=True)
        except RefusedError as error:
            return f"{message.message_type}: {error.message}"
        except CommandLineError as error:
            return f"{message.message_type}: {error.message} Run the same command again: what was moved stays."
    return None


def _report(operator: Operator, moved: list[str], left: list[LeftBehind], *, unproven: int, dry_run: bool) -> None:
    terminal = operator.terminal
    document: dict[str, Any] = {
        "dry_run": dry_run,
        "moved": moved,
        "left": [{"id": each.id, "reason": each.reason} for each in left],
        "without_certificate": unproven,
    }

    def show() -> None:
        terminal.facts({"would be moved" if dry_run else "moved": len(moved), "left behind": len(left)})
        if left:
            terminal.table(("ID", "WHY"), [(each.id, each.reason) for each in left], empty="")
            for reason, count in Counter(each.reason for each in left).most_common(3):
                terminal.note(f"[dim]{count}: {reason}[/dim]")
        if unproven:
            terminal.note(
                f"[yellow]{unproven} devices come without the hash of their certificate: they are let in by the first "
                "that they use, while the parameter RetroactiveAssociation is on.[/yellow]"
            )

    terminal.answer(document, show)
