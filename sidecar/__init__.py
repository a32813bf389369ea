"""Sidecar recreates labelled containers when a registry says that their image was pushed.

The line that everything follows:

    delivery -> hint -> queue -> resolve -> observe -> judge -> record -> prepare -> step -> gate -> finish -> record
"""

from importlib.metadata import version

__version__ = version("sidecar")
