"""Installer packages: what is read of them, and what is none."""

import plistlib
from contextlib import suppress

import pytest

from local.packages import COMPONENT, package
from mdmlib.apple.package import CHUNK_BYTES, PackageFacts, manifest, read_package
from mdmlib.errors import BadRequestError


def read(content: bytes) -> PackageFacts:
    return read_package(lambda offset, length: content[offset : offset + length])


def test_a_package_says_what_it_is_and_which_apps_it_installs() -> None:
    assert read(package(filling=100)) == PackageFacts(
        "com.example.munki", "6.1", "Munki tools", {"com.example.ManagedSoftwareCenter": "5.2"}
    )


def test_a_package_of_one_part_has_its_own_description() -> None:
    assert read(package(files={"PackageInfo": COMPONENT.encode()})) == PackageFacts(
        "com.example.tool", "1.0", "com.example.tool"
    )


def test_a_manifest_names_the_package_and_its_hashes() -> None:
    facts = read(package())
    (item,) = plistlib.loads(manifest(facts, url="https://x/repo/a.pkg", sha256s=["ab"]))["items"]

    assert item["assets"] == [
        {"kind": "software-package", "sha256-size": CHUNK_BYTES, "sha256s": ["ab"], "url": "https://x/repo/a.pkg"}
    ]
    assert item["metadata"] == {
        "bundle-identifier": "com.example.ManagedSoftwareCenter",
        "bundle-version": "5.2",
        "kind": "software",
        "title": "Munki tools",
    }


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><pkg-info identifier="&b;"/>'
NOT_PACKAGES = {
    "nothing": b"",
    "a zip": b"PK\x03\x04" + bytes(100),
    "a beginning": package()[:20],
    "half of one": package()[:60],
    "another version": package().replace(b"\0\x1c\0\1", b"\0\x1c\0\2", 1),
    "no description": package(files={"Bom": b"x"}),
    "a description that is none": package(files={"Distribution": b"x"}),
    "a description without a name": package(files={"Distribution": b"<x/>"}),
    "declared entities": package(files={"PackageInfo": BOMB}),
    "one that unpacks to too much": package(files={"Distribution": bytes(8_000_000)}),
    "nested too deeply": package(files={"Distribution": b"<a>" * 200}),
}


@pytest.mark.parametrize("content", NOT_PACKAGES.values(), ids=NOT_PACKAGES.keys())
def test_what_is_no_package_is_refused(content: bytes) -> None:
    with pytest.raises(BadRequestError) as refused:
        read(content)
    assert (refused.value.code, refused.value.field) == ("not_a_package", "pkg")


@pytest.mark.parametrize("start", range(0, 300, 7))
def test_a_damaged_package_is_refused_or_read_and_nothing_else(start: int) -> None:
    whole = bytearray(package())
    whole[start % len(whole)] ^= 0x55
    with suppress(BadRequestError):
        read(bytes(whole))
