"""The documents, held against what they tell of: what a reader types has to exist, where a link leads has to be."""

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from local.webhook_listener import sign
from picomdm.main import app as command_line
from picomdm.send import BY_FIELDS, RequestTypes
from tests.api_description import operations
from tests.event_schemas import assert_conforms
from tools import api_reference, architecture_picture, dashboard_picture, template_tables

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
TEMPLATE = template_tables.read_template()


def name_of(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


def blocks(document: Path, language: str = "") -> Iterator[str]:
    """Yield the code blocks of a document in one language, "" for those that name none."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL):
        if found[1] == language:
            yield found[2]


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_that_is_named_is_there(document: Path) -> None:
    places = [REPOSITORY, REPOSITORY / "layers/mdmlib/python", REPOSITORY / "layers/mdmlib/python/mdmlib"]
    for file in re.findall(r"`((?:[a-z_]+/)+[a-z0-9_]+\.(?:py|md|yaml|toml))`", prose(document)):
        assert any((place / file).exists() for place in places), file


def test_every_decision_is_in_the_index() -> None:
    folder = REPOSITORY / "docs" / "decisions"
    listed = re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", (folder / "README.md").read_text(), re.MULTILINE)

    assert listed == sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")


def test_the_picture_is_what_its_script_draws() -> None:
    assert architecture_picture.complaints(architecture_picture.TEMPLATE.read_text()) == []
    assert architecture_picture.PICTURE.read_text() == architecture_picture.draw()


def test_the_picture_of_the_dashboard_is_the_dashboards() -> None:
    widgets = dashboard_picture.widgets(dashboard_picture.TEMPLATE.read_text())
    numbers = json.loads(dashboard_picture.NUMBERS.read_text())

    assert dashboard_picture.PICTURE.read_text() == dashboard_picture.draw(widgets, numbers)


def test_the_reference_of_the_api_is_what_its_script_writes() -> None:
    written = api_reference.REFERENCE.read_text()

    assert written == api_reference.render(api_reference.read()), "run .venv/bin/python tools/api_reference.py"


def test_parameters_and_outputs_are_those_of_the_template() -> None:
    document = template_tables.DOCUMENT.read_text()

    assert template_tables.with_tables(document, TEMPLATE) == document
    assert set(TEMPLATE["Parameters"]) == set(
        re.findall(r"^\| `(\w+)` \| .* \|$", parameters_table(document), re.MULTILINE)
    )


def parameters_table(document: str) -> str:
    return document.partition("<!-- begin parameters -->")[2].partition("<!-- end parameters -->")[0]


def routes_of_template() -> set[str]:
    return {
        resource["Properties"]["RouteKey"]
        for resource in TEMPLATE["Resources"].values()
        if resource["Type"] == "AWS::ApiGatewayV2::Route"
    }


def test_every_route_of_the_template_is_in_the_tables_of_the_api() -> None:
    rows = re.findall(
        r"^\| .*?`(?:ANY|GET|PUT|POST|PATCH|DELETE) /.*?\|", (REPOSITORY / "docs" / "api.md").read_text(), re.MULTILINE
    )
    described = {route for row in rows for route in re.findall(r"`([A-Z]+ /[^`]*)`", row)}

    # What is behind a route that ends in {proxy+} is its function's matter.
    assert described >= routes_of_template()
    behind = {f"{method} {path}" for method, path, _ in operations() if not path.startswith("/v2/")}
    assert described - routes_of_template() == behind - routes_of_template()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_json_example_is_json(document: Path) -> None:
    for block in blocks(document, "json"):
        json.loads(block)


def test_every_event_that_is_shown_is_as_its_schema_says() -> None:
    shown = [json.loads(block) for block in blocks(REPOSITORY / "docs" / "webhooks.md", "json")]

    assert {document["topic"] for document in shown} == {"mdm.TokenUpdate", "mdm.Connect", "mdm.CommandQueued"}
    for document in shown:
        assert_conforms(document)


def test_the_python_that_verifies_an_hmac_does() -> None:
    (code,) = blocks(REPOSITORY / "docs" / "webhooks.md", "python")
    names: dict[str, Any] = {}
    exec(code, names)
    is_authentic = names["is_authentic"]

    assert is_authentic(b"key", b"body", sign(b"key", b"body")) is True
    assert is_authentic(b"key", b"body ", sign(b"key", b"body")) is False
    assert is_authentic(b"key", b"body", None) is False


def lines_typed(document: Path) -> Iterator[list[str]]:
    """Yield what a document tells one to type of ours, in words."""
    typed = re.findall(r"`((?:picomdm|make) [^`\n]+)`", prose(document))
    typed += [line for block in blocks(document) for line in block.replace("\\\n", " ").splitlines()]
    for line in typed:
        if re.match(r"(?:\S*/)?picomdm |make [a-z]", line):
            # A placeholder is one word, and no redirection.
            yield shlex.split(re.sub(r"<[^>]*>", "PLACEHOLDER", line))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_that_is_shown_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for program, *words in lines_typed(document):
        if program == "make":
            assert words[0] in targets
        else:
            assert_picomdm_takes(words)


@cache
def all_commands() -> Any:
    """Return the command line, which takes a while to make."""
    return typer.main.get_command(command_line)


def assert_picomdm_takes(words: list[str]) -> None:
    command = all_commands()
    while words[0].startswith("--"):
        option = next(each for each in command.params if words[0] in each.opts)
        words = words[1 if getattr(option, "is_flag", False) else 2 :]
        if not words:
            return
    while isinstance(command, TyperGroup) and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    if isinstance(command, RequestTypes):
        command = command.get_command(None, words[0]) or command.commands[BY_FIELDS]
    assert not isinstance(command, TyperGroup) or words[0].isupper(), words
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    unknown = {word for word in words if word.startswith("--") and word.partition("=")[0] not in options}
    assert not unknown, words
