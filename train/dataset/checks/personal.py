"""Personal data and secrets inside texts: patterns with their check digits.

Owns what is looked for and how it is shown. Names of people and places are not found: that needs a
language model, and none is shipped. Invariant: nothing that was found leaves this module unmasked.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

_EMAIL = re.compile(r"[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:(?:\+|00)[1-9]\d{0,2}[ .\-/]?(?:\(\d{1,5}\)|\d{1,5})(?:[ .\-/]?\d{2,5}){1,4}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-])"
)
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:|:){2,7}(?:[0-9A-Fa-f]{1,4})?(?![\w:])")
_CARD = re.compile(r"(?<![\w.-])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----")
_KEY_BLOCK = re.compile(
    _PRIVATE_KEY.pattern + r".*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{36,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{22,}|\bglpat-[\w-]{20,}|\bxox[abeoprs]-[\w-]{10,}|\bAIza[\w-]{35}\b"
    r"|\bhf_[A-Za-z0-9]{30,}|\b[rs]k_live_[A-Za-z0-9]{20,}|\bnpm_[A-Za-z0-9]{36}\b"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}|://[^\s/:@]{1,64}:[^\s/:@]{3,64}@[\w.-]+"
)
_ASSIGNED = re.compile(
    r"(?i)\b(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|passw(?:or)?d)\b"
    r"[\"']?\s*[:=]\s*[\"']?([^\s\"',;]{8,})"
)
# What a text must have to hold a token, or a password behind a name; plain searches are fast.
_TOKEN_MARKS = (
    "AKIA", "ASIA", "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "AIza",
    "hf_", "k_live_", "npm_", "eyJ", "://",
)  # fmt: skip
_NAME_MARKS = ("key", "token", "secret", "passw")
_DIGITS = re.compile(r"\d[\d .()/-]{5,}\d|[0-9A-Fa-f]:[0-9A-Fa-f:]*:|::")
_IBAN_LENGTHS = range(15, 35)
_ENTROPY_BITS = 3.0


def find_personal(text: str) -> Iterator[tuple[str, str]]:
    """Yield (rule id, masked sample) of every personal datum and secret in `text`."""
    for rule, start, end in _spans(text):
        yield rule, _masked(rule, text[start:end])


def hide(text: str) -> str:
    """Return `text` with every personal datum and secret in it masked."""
    for rule, start, end in sorted(_spans(text), key=lambda span: span[1], reverse=True):
        text = text[:start] + _masked(rule, text[start:end]) + text[end:]
    return text


def masked(text: str, rules: frozenset[str]) -> tuple[str, frozenset[str]]:
    """Return `text` with a word (`[EMAIL]`) for each datum and secret of `rules`, and the rules found.

    Of a private key the whole block goes.
    """
    found: set[str] = set()
    if "D-PRIVATE-KEY" in rules and _has_key(text):
        text, count = _KEY_BLOCK.subn(_word("D-PRIVATE-KEY"), text)
        found |= {"D-PRIVATE-KEY"} if count else set()
    spans = [span for span in _spans(text) if span[0] in rules]
    for rule, start, end in sorted(spans, key=lambda span: span[1], reverse=True):
        text = text[:start] + _word(rule) + text[end:]
        found.add(rule)
    return text, frozenset(found)


def _word(rule: str) -> str:
    return f"[{rule.removeprefix('D-').replace('-', ' ')}]"


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    taken: list[tuple[int, int]] = []
    needed = {need for need in _NEEDS if need(text)}
    for rule, pattern, holds, need in _PATTERNS if needed else ():
        if need not in needed:
            continue
        for match in pattern.finditer(text):
            start, end = match.span(match.lastindex or 0)
            # A card's digits also look like a telephone number: the first pattern has it.
            if holds(text[start:end]) and not any(s < end and start < e for s, e in taken):
                taken.append((start, end))
                yield rule, start, end


def _masked(rule: str, found: str) -> str:
    if rule == "D-PRIVATE-KEY":
        return "-----BEGIN … KEY-----"
    shown = 4 if rule == "D-SECRET" else 1
    stars = "".join("*" if sign.isalnum() else sign for sign in found[shown:])
    return found[:shown] + (stars if len(stars) <= 24 else stars[:24] + "…")


def _is_card(found: str) -> bool:
    digits = [int(sign) for sign in found if sign.isdecimal()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(found: str) -> bool:
    plain = found.replace(" ", "")
    if len(plain) not in _IBAN_LENGTHS:
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def _is_public_address(found: str) -> bool:
    try:
        return ipaddress.ip_address(found).is_global
    except ValueError:
        return False


def _is_phone(found: str) -> bool:
    return 9 <= sum(sign.isdecimal() for sign in found) <= 15


def _is_password(found: str) -> bool:
    counts = Counter(found)
    bits = -sum(n / len(found) * math.log2(n / len(found)) for n in counts.values())
    mixed = any(sign.isdecimal() for sign in found) and any(sign.isalpha() for sign in found)
    return mixed and bits >= _ENTROPY_BITS


def _always(found: str) -> bool:  # noqa: ARG001  one signature for all
    return True


def _has_at(text: str) -> bool:
    return "@" in text


def _has_key(text: str) -> bool:
    return "PRIVATE KEY" in text


def _has_digits(text: str) -> bool:
    return _DIGITS.search(text) is not None


def _has_token(text: str) -> bool:
    return any(mark in text for mark in _TOKEN_MARKS)


def _has_name(text: str) -> bool:
    lowered = text.lower()
    return any(mark in lowered for mark in _NAME_MARKS) and (":" in text or "=" in text)


# Rule, pattern, what the match must hold besides, and what a text must have to be searched at all.
_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool], Callable[[str], bool]], ...] = (
    ("D-PRIVATE-KEY", _PRIVATE_KEY, _always, _has_key),
    ("D-SECRET", _TOKEN, _always, _has_token),
    ("D-SECRET", _ASSIGNED, _is_password, _has_name),
    ("D-EMAIL", _EMAIL, _always, _has_at),
    ("D-IBAN", _IBAN, _is_iban, _has_digits),
    ("D-CARD", _CARD, _is_card, _has_digits),
    ("D-IP", _IPV4, _is_public_address, _has_digits),
    ("D-IP", _IPV6, _is_public_address, _has_digits),
    ("D-SSN", _SSN, _always, _has_digits),
    ("D-PHONE", _PHONE, _is_phone, _has_digits),
)
_NEEDS = tuple(dict.fromkeys(need for *_, need in _PATTERNS))
