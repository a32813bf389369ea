"""What a sender is to us: how its bodies are read, and what answer it can bear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sidecar.core.hint import Reading

JSON = "application/json"

# Headers, body, and the options that the source was configured with.
Parse = Callable[[Mapping[str, str], bytes, Mapping[str, str]], Reading]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of sender.

    Attributes:
        parse: reads an authenticated, bounded body; raises Malformed, and nothing else, for what it cannot read.
        retries_for_ever: an error would make it repeat the delivery and block all that follow (or switch itself off),
            so that after authentication it is told "accepted, and ignored" instead.
        content_types: what its bodies may be declared as; with JSON among them, also every ``+json``.
    """

    kind: str
    parse: Parse
    retries_for_ever: bool = False
    content_types: frozenset[str] = frozenset({JSON})

    def reads(self, content_type: str) -> bool:
        """Say whether a body declared like this can be read; one that is not declared can."""
        if content_type == JSON:
            return JSON in self.content_types
        media_type = content_type.partition(";")[0].strip().lower()
        if not media_type or media_type in self.content_types:
            return True
        return JSON in self.content_types and media_type.endswith("+json")
