"""Installer packages: what they say of themselves, and the manifests by which devices install them.

Apple's page: https://developer.apple.com/documentation/devicemanagement/manifesturl. The package itself is signed or
not; whether it is trusted is for devices to judge.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mdmlib.apple import plist
from mdmlib.apple.xar import Archive, Element, Read, not_a_package, parse_xml

CHUNK_BYTES: Final = 10 * 1024 * 1024
"""A device verifies so much at a time while it downloads: a damaged part is found early."""

_DESCRIPTIONS: Final = ("Distribution", "PackageInfo")
_MAX_BUNDLES: Final = 100
_LONGEST: Final = 200


@dataclass(frozen=True)
class PackageFacts:
    """What a package says of itself."""

    identifier: str
    version: str
    title: str
    bundles: Mapping[str, str] = field(default_factory=dict)
    """Versions by bundle identifier, of the apps that it installs."""


def read_package(read: Read) -> PackageFacts:
    """Read a package's descriptions. Raises :class:`~mdmlib.errors.BadRequestError` for what is none."""
    archive = Archive(read)
    described = [file for file in archive.files if file.path.rsplit("/", 1)[-1] in _DESCRIPTIONS]
    if not described:
        raise not_a_package("there is neither a Distribution nor a PackageInfo in it")
    # The whole describes its parts; a package of one part has its own description only.
    described.sort(key=lambda file: (file.path != "Distribution", file.path))
    elements = [element for file in described for element in parse_xml(archive.content(file)).walk()]
    identifier, version = next(_identities(elements), ("", ""))
    if not identifier:
        raise not_a_package("it has no identifier")
    title = next((element.text.strip() for element in elements if element.name == "title"), "")
    return PackageFacts(identifier[:_LONGEST], version[:_LONGEST], (title or identifier)[:_LONGEST], _bundles(elements))


def manifest(facts: PackageFacts, *, url: str, sha256s: Sequence[str]) -> bytes:
    """Return the manifest by which a device installs a package from ``url``."""
    bundle = next(iter(facts.bundles), facts.identifier)
    version = facts.bundles.get(bundle) or facts.version or "1"
    return plist.dumps(
        {
            "items": [
                {
                    "assets": [
                        {
                            "kind": "software-package",
                            "sha256-size": CHUNK_BYTES,
                            "sha256s": list(sha256s),
                            "url": url,
                        }
                    ],
                    "metadata": {
                        "bundle-identifier": bundle,
                        "bundle-version": version,
                        "kind": "software",
                        "title": facts.title,
                    },
                }
            ]
        }
    )


def _identities(elements: Sequence[Element]) -> Iterator[tuple[str, str]]:
    for name, identifier in (("product", "id"), ("pkg-info", "identifier"), ("pkg-ref", "id")):
        for element in elements:
            if element.name == name and element.attributes.get(identifier):
                yield element.attributes[identifier], element.attributes.get("version", "")


def _bundles(elements: Sequence[Element]) -> dict[str, str]:
    found: dict[str, str] = {}
    for element in elements:
        identifier, path = element.attributes.get("id"), element.attributes.get("path", "")
        # Frameworks and plug-ins inside of an app are bundles too, which no device lists.
        if element.name == "bundle" and identifier and path.endswith(".app") and path.count(".app") == 1:
            version = element.attributes.get("CFBundleShortVersionString") or element.attributes.get("CFBundleVersion")
            found.setdefault(identifier[:_LONGEST], (version or "")[:_LONGEST])
        if len(found) == _MAX_BUNDLES:
            break
    return found
