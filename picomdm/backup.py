"""``picomdm export`` and ``picomdm import``: everything that a deployment knows, in one encrypted file.

Both tables, the payload bucket, the webhooks' rules and the master keys, read and written past the deployment's own
code: it takes whoever may do that in AWS. What is sealed stays sealed in the file, and the keys that open it are in the
file too.

A record of the file has a ``kind``:

``begin``     which stack it is of, and when
``secret``    the master keys
``item``      an item of a table (``enrollment`` or ``resource``), as DynamoDB has it
``rule``      a rule of a webhook
``object``    an object of the bucket
``position``  how far the export has come; the last record of each chunk
``end``       how many there are of each kind

The records of enrollments come before all else of their table: whether an enrollment may be brought back is known
before anything of it is. An enrollment that a deployment knows already is never touched: since the back-up its device
may have answered commands, got another identity, or left.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from botocore.exceptions import ClientError

from picomdm.archive import ArchiveReader, ArchiveWriter, Record
from picomdm.backup_records import COUNTED, counted, said
from picomdm.backup_source import Source
from picomdm.backup_target import Progress, Target
from picomdm.context import JSON, Operator, operator_of
from picomdm.deployment import refused_by_aws
from picomdm.errors import RefusedError, SetupError
from picomdm.files import read_lines

_SHORTEST: Final = 12

PASSPHRASE_FILE = Annotated[
    Path | None,
    typer.Option(
        envvar="PICOMDM_PASSPHRASE_FILE", help="The passphrase is the first line of this file. Else it is asked for."
    ),
]


def export(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Is made; one that broke off is gone on with.")],
    passphrase_file: PASSPHRASE_FILE = None,
    enrollment_table: Annotated[
        str | None, typer.Option(help="Read this table instead of the stack's: one that was restored.")
    ] = None,
    resource_table: Annotated[str | None, typer.Option(help="The same for the other table.")] = None,
    _json: JSON = False,
) -> None:
    """Write everything that a deployment knows into an encrypted file, its master keys included."""
    operator = operator_of(context)
    passphrase = _passphrase(passphrase_file, again=not file.exists())
    source = Source(operator.deployment, enrollment_table, resource_table)
    writer, counts, position = _begin(file, passphrase, operator)
    try:
        with closing(writer), operator.terminal.progress("Exporting …") as tell:
            for records, behind in source.pages(position):
                counts.update(counted(record) for record in records if record["kind"] in COUNTED)
                tell(f"Exporting: {said(counts)} …")
                writer.write([*records, {"kind": "position", "at": behind, "counts": dict(counts)}])
            writer.write([{"kind": "end", "counts": dict(counts)}], last=True)
    except ClientError as error:
        raise refused_by_aws(error) from error
    operator.terminal.answer(
        {"file": str(file), "counts": dict(counts)},
        lambda: operator.terminal.say(f"{file} has all of {operator.deployment.stack}: {said(counts)}."),
    )


def import_(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `picomdm export` made.")],
    passphrase_file: PASSPHRASE_FILE = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also into a deployment that is not empty: what it has stays as it is.")
    ] = False,
    _json: JSON = False,
) -> None:
    """Bring a back-up into a deployment. What is there already is never changed."""
    operator = operator_of(context)
    passphrase = _passphrase(passphrase_file, again=False)
    target = Target(operator.deployment)
    try:
        with file.open("rb") as stream, operator.terminal.progress("Reading …") as tell:
            reader = ArchiveReader(stream, passphrase)
            progress = Progress.of(file, reader.id, operator.deployment.stack)
            broke_off_at = progress.chunks or None
            for number, records in enumerate(reader.chunks()):
                if number == 0:
                    _check(records, target, progress, force=force)
                if number >= progress.chunks:
                    target.write(records, progress, again=number == broke_off_at)
                    progress.note(number + 1)
                    tell(f"Importing: {said(progress.counts)} …")
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}.", code="file_unreadable") from error
    except ClientError as error:
        raise refused_by_aws(error) from error
    progress.forget()
    kept = sorted(progress.kept)

    def show() -> None:
        operator.terminal.say(f"{operator.deployment.stack} has: {said(progress.counts)}.")
        for name in kept:
            operator.terminal.plain(f"  kept as it was here: {name}")

    operator.terminal.answer({"file": str(file), "counts": dict(progress.counts), "kept": kept}, show)
    if kept:
        raise typer.Exit(1)


def _begin(
    file: Path, passphrase: str, operator: Operator
) -> tuple[ArchiveWriter, Counter[str], Mapping[str, Any] | None]:
    """Begin a file, or go on with one that broke off."""
    try:
        if not file.exists() or not file.stat().st_size:
            file.unlink(missing_ok=True)
            return ArchiveWriter.begin(file, passphrase), Counter(), None
        writer, last = ArchiveWriter.go_on(file, passphrase)
    except OSError as error:
        raise SetupError(f"{file} cannot be written: {error.strerror}.", code="file_unwritable") from error
    if not last:
        return writer, Counter(), None
    position = last[-1]
    operator.terminal.note(f"Going on with {file}, which has {said(position['counts'])}.")
    return writer, Counter(position["counts"]), position["at"]


def _check(records: Sequence[Record], target: Target, progress: Progress, *, force: bool) -> None:
    """Refuse what would do harm, before anything is written; take over the master keys."""
    secret = next((record["value"] for record in records if record["kind"] == "secret"), None)
    if secret is None:
        raise SetupError("The back-up does not begin with its master keys.", code="backup_unreadable")
    same, empty = target.secret() == secret, target.is_empty()
    if not same and not empty:
        raise RefusedError(
            "This deployment has enrollments or settings of its own, sealed under other master keys: nothing of the "
            "back-up could be read beside them. Import into a new deployment.",
            code="other_keys",
        )
    if not empty and not force and not progress.chunks:
        raise RefusedError(
            "This deployment is not empty. With --force it gets what it does not have; what it has stays as it is.",
            code="not_empty",
        )
    if not same:
        target.replace_secret(secret)


def _passphrase(file: Path | None, *, again: bool) -> str:
    if file is not None:
        lines = read_lines(file)
        passphrase = lines[0] if lines else ""
    elif (given := os.environ.get("PICOMDM_PASSPHRASE")) is not None:
        passphrase = given
    else:
        try:
            passphrase = str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=again, err=True))
        except typer.Abort:
            raise SetupError("Nobody says a passphrase; use --passphrase-file.", code="no_passphrase") from None
    if len(passphrase) < _SHORTEST:
        raise SetupError(f"A passphrase has {_SHORTEST} characters and more.", code="passphrase_short")
    return passphrase
