"""Installer packages, simulated: a xar archive, written as its format says, with nothing to install in it."""

import gzip
import hashlib
import struct
import zlib

DISTRIBUTION = """<?xml version="1.0" encoding="utf-8"?>
<installer-gui-script minSpecVersion="2">
  <title>Munki tools</title>
  <product id="com.example.munki" version="6.1"/>
  <pkg-ref id="com.example.munki.core" version="6.1"/>
  <pkg-ref id="com.example.munki.core">
    <bundle-version>
      <bundle id="com.example.ManagedSoftwareCenter" CFBundleShortVersionString="5.2" path="Applications/Managed.app"/>
      <bundle id="com.example.framework" CFBundleVersion="1" path="Applications/Managed.app/Contents/X.framework"/>
    </bundle-version>
  </pkg-ref>
</installer-gui-script>
"""
COMPONENT = '<pkg-info identifier="com.example.tool" version="1.0"/>'


def package(*, files: dict[str, bytes] | None = None, filling: int = 0) -> bytes:
    """Return a package with these files, which are packed, and a filling that is not."""
    files = {"Distribution": DISTRIBUTION.encode()} if files is None else files
    heap, entries = bytes(20), []
    for number, (name, content) in enumerate(files.items(), 1):
        packed = gzip.compress(content, mtime=0)
        entries.append(
            f'<file id="{number}"><name>{name}</name><type>file</type><data><offset>{len(heap)}</offset>'
            f"<length>{len(packed)}</length><size>{len(content)}</size>"
            '<encoding style="application/x-gzip"/></data></file>'
        )
        heap += packed
    contents = f'<?xml version="1.0"?><xar><toc>{"".join(entries)}</toc></xar>'.encode()
    packed_contents = zlib.compress(contents)
    header = struct.pack(">4sHHQQI", b"xar!", 28, 1, len(packed_contents), len(contents), 1)
    heap = hashlib.sha1(packed_contents).digest() + heap[20:]
    return header + packed_contents + heap + bytes(filling)
