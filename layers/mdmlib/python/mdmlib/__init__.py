"""What every PicoMDM function shares: Apple's protocols, the store, the services and the edges.

Importing this package, or any module in it, has no effect: no environment is read and no client is made
until :mod:`mdmlib.runtime` is asked for a service.
"""

from typing import Final

__version__: Final = "0.1.0"
