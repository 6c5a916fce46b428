"""The `filters` query parameter: both of its JSON forms, Docker's ways to match, unknown filters refused. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import msgspec

from tsunagu.model.errors import InvalidParameter
from tsunagu.services.filters import matches_labels


class Filters(dict[str, list[str]]):
    """Filter names to their values."""

    def exact(self, name: str, value: str) -> bool:
        """True when there is no such filter or one of its values is `value`."""
        wanted = self.get(name)
        return not wanted or value in wanted

    def matches(self, name: str, *values: str) -> bool:
        """As `exact`, but a filter value is also a regular expression found in one of `values` (Docker's rule)."""
        wanted = self.get(name)
        return not wanted or any(_found(pattern, value) for pattern in wanted for value in values)

    def starts(self, name: str, value: str) -> bool:
        """As `exact`, but a prefix is enough."""
        wanted = self.get(name)
        return not wanted or any(value.startswith(prefix) for prefix in wanted)

    def has_labels(self, labels: Mapping[str, str]) -> bool:
        """True when every `label` filter holds and no `label!` filter does."""
        return matches_labels(labels, self)

    def flag(self, name: str, *, default: bool | None = None) -> bool | None:
        """Return a filter that is a boolean; raises InvalidParameter in Docker's words."""
        values = self.get(name)
        if not values:
            return default
        truths = {v in ("1", "true", "True", "TRUE", "t", "T") for v in values}
        known = all(
            v in ("0", "1", "true", "True", "TRUE", "t", "T", "false", "False", "FALSE", "f", "F") for v in values
        )
        if not known or len(truths) > 1:
            raise InvalidParameter(f"invalid filter '{name}={values}'")
        return truths.pop()


def parse_filters(text: str, known: Collection[str]) -> Filters:
    """Parse `{"name":{"value":true}}` and the older `{"name":["value"]}`; raises InvalidParameter in Docker's words."""
    filters = Filters()
    if not text:
        return filters
    try:
        decoded = msgspec.json.decode(text.encode())
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"invalid filter: {error}") from error
    if not isinstance(decoded, dict):
        raise InvalidParameter("invalid filter")
    for name, values in decoded.items():
        if name not in known:
            raise InvalidParameter(f"invalid filter '{name}'", hint=f"filters here: {', '.join(sorted(known))}")
        if isinstance(values, dict):
            filters[name] = [value for value, is_set in values.items() if is_set]
        elif isinstance(values, list) and all(isinstance(value, str) for value in values):
            filters[name] = values
        else:
            raise InvalidParameter(f"invalid filter '{name}'")
    return filters


def _found(pattern: str, value: str) -> bool:
    if pattern == value:
        return True
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return False
