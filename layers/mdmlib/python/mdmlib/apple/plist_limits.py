"""What both forms of a property list are held to. The bounds are far above what devices send."""

from typing import Final

MAX_DEPTH: Final = 64
"""Dictionaries and arrays within each other. Profiles, the deepest that there is, have about 10."""

MAX_VALUES: Final = 262_144
"""Values in the whole tree. A list of 1,500 applications has 20,000; this many take less than a second to read."""

MIN_INTEGER: Final = -(1 << 63)
MAX_INTEGER: Final = (1 << 64) - 1
