"""Writes the tables of docs/deploying.md that say what template.yaml says: parameters and outputs.

Usage: ``python tools/template_tables.py [--check]``. With ``--check`` nothing is written: the exit status is 1 when a
table is not what it should be. Each table stands between two comments, ``<!-- begin parameters -->`` and
``<!-- end parameters -->``.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

REPOSITORY: Final = Path(__file__).resolve().parent.parent
TEMPLATE: Final = REPOSITORY / "template.yaml"
DOCUMENT: Final = REPOSITORY / "docs" / "deploying.md"


class _Loader(yaml.CSafeLoader):
    """Takes CloudFormation's tags (``!Ref``) for the plain values that they stand before."""


def _without_tag(loader: _Loader, _tag: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Loader.add_multi_constructor("!", _without_tag)


def read_template() -> dict[str, Any]:
    """Return the template, with CloudFormation's functions as mere values."""
    template: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)  # noqa: S506 - a SafeLoader
    return template


def with_tables(document: str, template: Mapping[str, Any]) -> str:
    """Return the document with its tables as they should be."""
    for name, rows in (("parameters", _parameters(template)), ("outputs", _outputs(template))):
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        table = "\n".join([f"{begin}\n", *rows, f"\n{end}"])
        document = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}", table.replace("\\", r"\\"), document, flags=re.DOTALL
        )
    return document


def _parameters(template: Mapping[str, Any]) -> Iterator[str]:
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    yield "| Parameter | Default | What it says |"
    yield "| --- | --- | --- |"
    for group in groups:
        yield f"| **{group['Label']['default']}** | | |"
        for name in group["Parameters"]:
            parameter = template["Parameters"][name]
            default = f"`{parameter['Default']}`" if str(parameter["Default"]) else ""
            yield f"| `{name}` | {default} | {_described(parameter)} |"


def _described(parameter: Mapping[str, Any]) -> str:
    words = _cell(parameter["Description"])
    if "AllowedValues" in parameter and len(parameter["AllowedValues"]) <= _FEW:
        choices = ", ".join(f"`{value}`" for value in parameter["AllowedValues"])
        words += f" One of {choices}."
    elif "MinValue" in parameter and "MaxValue" in parameter:
        words += f" From {parameter['MinValue']} to {parameter['MaxValue']}."
    return words


_FEW: Final = 5
"""Of so many choices, each is named."""


def _outputs(template: Mapping[str, Any]) -> Iterator[str]:
    yield "| Output | What it is |"
    yield "| --- | --- |"
    for name, output in template["Outputs"].items():
        yield f"| `{name}` | {_cell(output.get('Description', ''))} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def main() -> int:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say whether the tables are up to date")
    arguments = parser.parse_args()
    document = DOCUMENT.read_text()
    wanted = with_tables(document, read_template())
    if wanted == document:
        return 0
    if arguments.check:
        print(f"{DOCUMENT.relative_to(REPOSITORY)} is out of date: run `python tools/template_tables.py`.")
        return 1
    DOCUMENT.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
