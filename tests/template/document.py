"""template.yaml as data: intrinsic functions in their long form (``{"Ref": …}``, ``{"Fn::Sub": …}``)."""

from pathlib import Path
from typing import Any, Final

import yaml

REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent

Resource = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # as it is called
        """Refuse a key that is written twice: PyYAML takes the last one, CloudFormation none."""
        keys = [key.value for key, _ in node.value]
        if repeated := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"{sorted(repeated)} twice at {node.start_mark}")
        return super().construct_mapping(node, deep)


def _intrinsic(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    if tag == "GetAtt":
        value = value.split(".")
    return {tag if tag in {"Ref", "Condition"} else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _intrinsic)


class Template:
    """The template's sections, and its resources by type."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.parameters: dict[str, Resource] = document["Parameters"]
        self.resources: dict[str, Resource] = document["Resources"]
        self.outputs: dict[str, Resource] = document["Outputs"]
        self.function_defaults: dict[str, Any] = document["Globals"]["Function"]

    @classmethod
    def read(cls) -> "Template":
        """Read template.yaml."""
        # The loader is a safe one: it makes nothing but plain data.
        return cls(yaml.load((REPOSITORY / "template.yaml").read_text(), _Loader))

    def of(self, *types: str) -> dict[str, dict[str, Any]]:
        """Return the properties of all resources of these types, by logical id. ``AWS::`` goes without saying."""
        wanted = {f"AWS::{kind}" for kind in types}
        return {name: each.get("Properties", {}) for name, each in self.resources.items() if each["Type"] in wanted}

    def function(self, name: str) -> dict[str, Any]:
        """Return a function's properties, with those that all functions share."""
        own = self.resources[name]["Properties"]
        merged = {**self.function_defaults, **own}
        shared = self.function_defaults["Environment"]["Variables"]
        merged["Environment"] = {"Variables": {**shared, **own.get("Environment", {}).get("Variables", {})}}
        merged["LoggingConfig"] = {**self.function_defaults["LoggingConfig"], **own["LoggingConfig"]}
        return merged

    def statements(self) -> list[tuple[str, dict[str, Any]]]:
        """Return every statement of every policy, with the logical id of the resource that it stands in."""
        found = []
        for name, resource in self.resources.items():
            properties = resource.get("Properties", {})
            documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
            documents += [
                properties[key] for key in ("PolicyDocument", "AssumeRolePolicyDocument") if key in properties
            ]
            found += [(name, statement) for document in documents for statement in document["Statement"]]
        return found


def listed(value: Any) -> list[Any]:
    """Return what may stand alone or in a list, as a list."""
    return value if isinstance(value, list) else [value]


def named(reference: dict[str, Any]) -> str:
    """Return the logical id that ``!Ref X`` or ``!GetAtt X.Arn`` names."""
    return str(reference["Ref"] if "Ref" in reference else reference["Fn::GetAtt"][0])
