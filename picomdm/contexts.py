"""``picomdm contexts``: several deployments by names of one's own, and how each is reached.

They are kept in one file, which nobody else may read: it may hold API keys.
"""

import json
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, Final

import typer

from picomdm.basic import USERS, BasicAccess
from picomdm.context import JSON, operator_of
from picomdm.deployment import DEFAULT_STACK, Deployment
from picomdm.errors import SetupError
from picomdm.files import read_file

app: Final = typer.Typer(help="Name several deployments, and say which one is meant.", no_args_is_help=True)
_FILE_VARIABLE: Final = "PICOMDM_CONFIG"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Context:
    """How a deployment is reached: as AWS' tools reach it, or by HTTP Basic at the devices' address."""

    stack: str | None = None
    profile: str | None = None
    region: str | None = None
    admin_url: str | None = None
    url: str | None = None
    """For HTTP Basic, as are the next three."""
    user: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_variable: str | None = None
    """The environment variable that has the key, in its place."""

    @property
    def deployment(self) -> Deployment:
        """The deployment."""
        if self.url is None:
            return Deployment(self.stack or DEFAULT_STACK, self.admin_url, self.region, self.profile)
        key, variable = self.api_key, self.api_key_variable
        return Deployment(basic=BasicAccess(self.url, self.user or "", key=key, key_variable=variable))

    @property
    def told(self) -> dict[str, Any]:
        """What may be told of it."""
        known = {name: value for name, value in asdict(self).items() if value is not None and name != "api_key"}
        return {"authorization": "SigV4" if self.url is None else "Basic"} | known


@dataclass
class Contexts:
    """All contexts, by name, and the one that is meant when nobody says which."""

    current: str | None = None
    by_name: dict[str, Context] = field(default_factory=dict)

    @classmethod
    def read(cls) -> "Contexts":
        """Read the file; where there is none, there are no contexts.

        Raises :class:`~picomdm.errors.SetupError` for one that others may read although it holds a key.
        """
        file = contexts_file()
        try:
            document = json.loads(file.read_bytes())
            known = cls(document["current"], {name: Context(**each) for name, each in document["contexts"].items()})
            others_may = bool(file.stat().st_mode & _OTHERS)
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise SetupError(f"{file} cannot be read: {error.strerror}.", code="file_unreadable") from error
        except (ValueError, KeyError, TypeError, AttributeError):
            # What is wrong with it may be its secrets.
            raise SetupError(f"{file} holds no contexts: mend it, or remove it.", code="file_unreadable") from None
        if others_may and os.name == "posix" and any(context.api_key for context in known.by_name.values()):
            raise SetupError(
                f"{file} holds API keys, and others may read it: chmod 600 {file}", code="file_open_to_others"
            )
        return known

    def get(self, name: str) -> Context:
        """Return a context. Raises :class:`~picomdm.errors.SetupError`."""
        try:
            return self.by_name[name]
        except KeyError:
            known = ", ".join(sorted(self.by_name)) or "there are none"
            raise SetupError(f"There is no context {name} (known: {known}).", code="no_context") from None

    def write(self) -> None:
        """Write the file, whole or not at all, for nobody but this user."""
        file = contexts_file()
        document = {
            "current": self.current,
            "contexts": {
                name: {key: value for key, value in asdict(context).items() if value is not None}
                for name, context in sorted(self.by_name.items())
            },
        }
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Such a file is made with mode 0600.
            with NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as written:
                written.write(json.dumps(document, indent=2) + "\n")
            Path(written.name).replace(file)
        except OSError as error:
            raise SetupError(f"{file} cannot be written: {error.strerror}.", code="file_unwritable") from error


def contexts_file() -> Path:
    """Return where contexts are kept: the variable PICOMDM_CONFIG says, or else the system's custom."""
    return Path(os.environ.get(_FILE_VARIABLE) or Path(typer.get_app_dir("picomdm")) / "contexts.json")


def names(incomplete: str) -> list[str]:
    """Return the names that may be completed."""
    try:
        return [name for name in Contexts.read().by_name if name.startswith(incomplete)]
    except SetupError:
        return []


_NAME: Final = typer.Argument(autocompletion=names, help="As `picomdm contexts list` shows it.")


@app.command()
def add(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="What you call it.")],
    stack: Annotated[str | None, typer.Option(help="The CloudFormation stack.")] = None,
    profile: Annotated[str | None, typer.Option(help="A profile of ~/.aws/config.")] = None,
    region: Annotated[str | None, typer.Option(help="The stack's region; else the profile's.")] = None,
    admin_url: Annotated[str | None, typer.Option(help="The admin API's URL; else the stack's output.")] = None,
    url: Annotated[
        str | None,
        typer.Option(help="For HTTP Basic in place of AWS: where devices reach it, https://mdm.example.org."),
    ] = None,
    user: Annotated[str | None, typer.Option(help=f"For HTTP Basic: {', '.join(USERS)}.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="For HTTP Basic: a file with the API key; - is stdin. It is kept, mode 0600.")
    ] = None,
    api_key_variable: Annotated[
        str | None, typer.Option(help="For HTTP Basic: the environment variable that has the key, which is not kept.")
    ] = None,
    use: Annotated[bool, typer.Option("--use", help="Mean it from now on. The first one is meant anyway.")] = False,
    _json: JSON = False,
) -> None:
    """Name a deployment, or say anew how one is reached.

    picomdm contexts add prod --stack picomdm-prod --profile work --region eu-central-1

    picomdm contexts add school --url https://mdm.example.org --user micromdm --api-key-file -
    """
    operator = operator_of(context)
    of_aws = {"stack": stack, "profile": profile, "region": region, "admin_url": admin_url}
    key = _key(api_key_file) if api_key_file else None
    of_basic = {"url": url, "user": user, "api_key": key, "api_key_variable": api_key_variable}
    made = Context(**(_checked_basic(of_basic, of_aws) if any(of_basic.values()) else of_aws))
    known = Contexts.read()
    known.by_name[name] = made
    if use or known.current is None:
        known.current = name
    known.write()
    told: dict[str, Any] = {"name": name, "current": known.current == name} | made.told
    operator.terminal.answer(told, lambda: operator.terminal.facts(told))


@app.command("list")
def list_contexts(context: typer.Context, *, _json: JSON = False) -> None:
    """List the contexts, without their keys. The one with a star is meant when nobody says which."""
    terminal = operator_of(context).terminal
    known = Contexts.read()
    told = [{"name": name, "current": name == known.current} | each.told for name, each in known.by_name.items()]
    terminal.answer(
        {"contexts": told},
        lambda: terminal.table(
            ("", "NAME", "AUTHORIZATION", "WHERE", "WHO"),
            [
                (
                    "*" if name == known.current else " ",
                    name,
                    each.told["authorization"],
                    each.url or each.admin_url or each.stack or DEFAULT_STACK,
                    each.user or each.profile,
                )
                for name, each in known.by_name.items()
            ],
            empty="No contexts. Make one with: picomdm contexts add",
        ),
    )


@app.command()
def use(context: typer.Context, *, name: Annotated[str, _NAME], _json: JSON = False) -> None:
    """Mean this deployment, when nobody says which."""
    terminal = operator_of(context).terminal
    known = Contexts.read()
    known.get(name)
    known.current = name
    known.write()
    terminal.answer({"current": name}, lambda: terminal.say(f"{name} it is."))


@app.command()
def remove(context: typer.Context, *, name: Annotated[str, _NAME], _json: JSON = False) -> None:
    """Forget a context and its key. The deployment stays as it is."""
    terminal = operator_of(context).terminal
    known = Contexts.read()
    known.get(name)
    del known.by_name[name]
    if known.current == name:
        known.current = None
    known.write()
    terminal.answer({"name": name, "removed": True}, lambda: terminal.say("Forgotten."))


def _checked_basic(of_basic: Mapping[str, Any], of_aws: Mapping[str, Any]) -> dict[str, Any]:
    if any(of_aws.values()):
        raise typer.BadParameter("--stack, --profile, --region and --admin-url are of AWS; --url is of HTTP Basic.")
    if of_basic["url"] is None or of_basic["user"] not in USERS:
        raise typer.BadParameter(f"HTTP Basic needs a --url, and a --user: {', '.join(USERS)}.")
    if (of_basic["api_key"] is None) == (of_basic["api_key_variable"] is None):
        raise typer.BadParameter("HTTP Basic needs either --api-key-file or --api-key-variable.")
    BasicAccess.check_url(of_basic["url"])
    return dict(of_basic)


def _key(file: Path) -> str:
    content = sys.stdin.read() if str(file) == "-" else read_file(file).decode(errors="replace")
    key = content.strip()
    if not key.isascii() or not key.isprintable() or not key:
        raise SetupError("An API key has printable ASCII characters.", code="invalid_key")
    return key
