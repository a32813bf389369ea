"""Sidecar recreates labelled containers when a registry says that their image was pushed.

The line that everything follows:

    delivery -> hint -> queue -> resolve -> observe -> judge -> record -> prepare -> step -> gate -> finish -> record
"""

__version__: str


def __getattr__(name: str) -> str:
    """Give ``__version__`` when it is asked for: reading the metadata takes longer than a health check has to."""
    if name != "__version__":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib.metadata import version  # noqa: PLC0415

    return version(__name__)
