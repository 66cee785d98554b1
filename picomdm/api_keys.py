"""``picomdm api-key``: the passwords with which scripts of other servers call their APIs here, by HTTP Basic."""

import json
import secrets
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from botocore.exceptions import BotoCoreError, ClientError

from picomdm.context import JSON, Operator, operator_of
from picomdm.deployment import refused_by_aws
from picomdm.errors import RefusedError, SetupError
from picomdm.files import read_file

app: Final = typer.Typer(
    help="Show, add and retire the passwords of HTTP Basic (BasicAuth), which stand in the stack's secret.",
    no_args_is_help=True,
)

_KEYS: Final = "api_keys"
_CURRENT: Final = "current_key"
_SHORTEST: Final = 16
_LONGEST: Final = 200
_RANDOM_BYTES: Final = 32


@app.command()
def show(context: typer.Context, *, _json: JSON = False) -> None:
    """Print the keys that are good, the newest first."""
    operator = operator_of(context)
    keys = _read(operator).get(_KEYS, [])

    def say() -> None:
        for key in keys:
            operator.terminal.plain(key)
        if not keys:
            operator.terminal.say("None yet; make one: picomdm api-key add")

    operator.terminal.answer({_KEYS: keys}, say)


@app.command()
def add(
    context: typer.Context,
    *,
    file: Annotated[
        Path | None, typer.Argument(help="A file with a key of your own, such as your former server's; else a new one.")
    ] = None,
    _json: JSON = False,
) -> None:
    """Add a key and print it. Those that were good before stay so until `picomdm api-key retire`."""
    operator = operator_of(context)
    key = _own(file) if file else secrets.token_urlsafe(_RANDOM_BYTES)
    document = _read(operator)
    # The newest is first, and there once.
    document[_KEYS] = [key, *(former for former in document.get(_KEYS, []) if former != key)]
    _write(operator, document)
    operator.terminal.answer({"api_key": key}, lambda: operator.terminal.plain(key))


@app.command()
def retire(context: typer.Context, *, _json: JSON = False) -> None:
    """Let no key be good but the newest. Functions that have read the others forget them within five minutes."""
    operator = operator_of(context)
    document = _read(operator)
    former = document.get(_KEYS, [])[1:]
    if former:
        document[_KEYS] = document[_KEYS][:1]
        _write(operator, document)
    operator.terminal.answer({"retired": len(former)}, lambda: operator.terminal.say(f"Retired {len(former)}."))


def _own(file: Path) -> str:
    key = read_file(file).decode(errors="replace").strip()
    if not _SHORTEST <= len(key) <= _LONGEST or not key.isascii() or not key.isprintable():
        raise SetupError(
            f"A key has {_SHORTEST} to {_LONGEST} printable ASCII characters: it must not be guessed.",
            code="invalid_key",
        )
    return key


def _read(operator: Operator) -> dict[str, Any]:
    """Return the secret's document. It holds the master keys too, which no error may quote."""
    try:
        answer = operator.deployment.client("secretsmanager").get_secret_value(
            SecretId=operator.deployment.output("SecretArn")
        )
    except ClientError as error:
        raise refused_by_aws(error) from error
    except BotoCoreError as error:
        raise SetupError(f"Secrets Manager cannot be asked: {error}", code="no_aws") from error
    try:
        document = json.loads(answer["SecretString"])
        document[document[_CURRENT]]
    except (ValueError, KeyError, TypeError):
        raise RefusedError("The stack's secret is no document of master keys.", code="secret_unusable") from None
    found: dict[str, Any] = document
    return found


def _write(operator: Operator, document: dict[str, Any]) -> None:
    """Store the document whole. Secrets Manager keeps the one before as AWSPREVIOUS."""
    try:
        operator.deployment.client("secretsmanager").put_secret_value(
            SecretId=operator.deployment.output("SecretArn"), SecretString=json.dumps(document)
        )
    except ClientError as error:
        raise refused_by_aws(error) from error
    except BotoCoreError as error:
        raise SetupError(f"Secrets Manager cannot be asked: {error}", code="no_aws") from error
