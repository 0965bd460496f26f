"""What tokens cost: `[prices]` in wardrobe.toml (pure).

Owns the form of the table and which price counts for an adapter: that of its own name, else of the longest
pattern that fits. Invariant: prices are of today, whatever day the tokens are of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from registry.settings.faults import SettingFault
from registry.wording import fact_of

_SEE = "see docs/how-to/groups.md"
_MILLION = 1_000_000
_MOST = 1e9


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What a million tokens cost; what came from the prefix cache costs as all input unless it says so."""

    input: float
    output: float
    cached_input: float | None = None


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The prices by pattern of the adapter's name; `base` is the base model."""

    currency: str
    per_million: Mapping[str, TokenPrice]

    def price(self, adapter: str) -> TokenPrice | None:
        """Return the price of an adapter, None where none fits."""
        own = self.per_million.get(adapter)
        if own is not None:
            return own
        fitting = [pattern for pattern in self.per_million if fnmatchcase(adapter, pattern)]
        return self.per_million[max(fitting, key=lambda one: (len(one), one))] if fitting else None

    def cost(
        self, adapter: str, input_tokens: int, output_tokens: int, cached_tokens: int = 0
    ) -> float | None:
        """Return what tokens of an adapter cost, None without a price; the cached are among the input."""
        price = self.price(adapter)
        if price is None:
            return None
        cached = price.input if price.cached_input is None else price.cached_input
        fresh = max(0, input_tokens - cached_tokens)
        whole = fresh * price.input + (input_tokens - fresh) * cached + output_tokens * price.output
        return whole / _MILLION


NO_PRICES = PriceTable("", {})
_PRICES = tuple(field.name for field in fields(TokenPrice))


def read_prices(table: Mapping[str, Any]) -> PriceTable:
    """Return the prices that a `[prices]` without faults holds."""
    if not table:
        return NO_PRICES
    found = {
        pattern: TokenPrice(**{name: float(value) for name, value in prices.items()})
        for pattern, prices in table["per_million"].items()
    }
    return PriceTable(table["currency"], found)


def price_faults(table: Mapping[str, Any]) -> Iterator[SettingFault]:
    """Yield what is wrong within `[prices]`, beyond its own keys and their types."""
    for key in ("currency", "per_million"):
        if key not in table:
            yield SettingFault.wrong(("prices", key), "is missing", _SEE)
    currency, patterns = table.get("currency"), table.get("per_million")
    if isinstance(currency, str) and not (0 < len(currency) <= 8 and currency.isprintable()):
        yield SettingFault.wrong(("prices", "currency"), "must be 1 to 8 characters, such as EUR", _SEE)
    for pattern, prices in patterns.items() if isinstance(patterns, dict) else ():
        place = ("prices", "per_million", pattern)
        if not isinstance(prices, dict):
            yield SettingFault.wrong(place, fact_of({"type": "dict_type", "input": prices}), _SEE)
            continue
        for key, value in prices.items():
            if key not in _PRICES:
                yield SettingFault.unknown((*place, key), _PRICES, ())
            elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
                yield SettingFault.wrong((*place, key), f"must be a number from 0 to {_MOST:g}", _SEE)
        for key in ("input", "output"):
            if key not in prices:
                yield SettingFault.wrong((*place, key), "is missing", _SEE)
