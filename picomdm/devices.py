"""How devices are named on the command line: by their enrollments' ids, or by their serial numbers."""

from typing import Annotated, Any, Final

import typer

from picomdm.context import operator_of
from picomdm.errors import CommandLineError

SERIAL: Final = "serial:"


def by_serial_number(context: typer.Context, value: Any) -> Any:  # noqa: ANN401 - what typer's callbacks are given
    """Return the enrollments that are named, each ``serial:…`` replaced by the id of the device that has it.

    Raises :class:`~picomdm.errors.CommandLineError` for a serial number of none, or of several that are enrolled.
    """
    if context.resilient_parsing or value is None:
        return value
    if isinstance(value, str):
        return _id_of(context, value)
    return [_id_of(context, each) for each in value]


ONE: Final = "A device's UDID or EnrollmentID, another enrollment's id, or serial:C02XXXX."

Id = Annotated[str, typer.Argument(metavar="ID", callback=by_serial_number, help=ONE)]
Ids = Annotated[list[str], typer.Argument(metavar="ID", callback=by_serial_number, help=ONE)]


def _id_of(context: typer.Context, name: str) -> str:
    if not name.startswith(SERIAL):
        return name
    serial_number = name.removeprefix(SERIAL)
    listed = operator_of(context).api.entries("/v2/enrollments", "enrollments", serial_number=serial_number)
    found = [entry for entry in listed if entry["parent_id"] is None]
    # Who enrolled anew under another id has an enrollment that is over, too.
    chosen = [entry for entry in found if entry["enabled"]] or found
    if not chosen:
        raise CommandLineError(f"No device has the serial number {serial_number}.", code="unknown_serial_number")
    if len(chosen) > 1:
        ids = ", ".join(entry["id"] for entry in chosen)
        raise CommandLineError(
            f"{len(chosen)} enrollments have the serial number {serial_number}: {ids}.", code="several_enrollments"
        )
    return str(chosen[0]["id"])
