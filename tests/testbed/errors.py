"""The one error of the testbed: a real part could not be had or did not do what it should."""


class PartError(Exception):
    """Says which part failed and what to do about it."""
