"""Personal data and secrets are found by shape and check digit, look-alikes not, and all of it is masked."""

from __future__ import annotations

import pytest

from train.dataset.checks.content import inspect_text
from train.dataset.checks.personal import find_personal, hide

KEY = "sk-" + "proj-9f8e7d6c5b4a39281706"
FOUND = [
    ("write to Jane_Doe+x@mail.example.co.uk now", "D-EMAIL"),
    ("call (555) 010-9999 or so", "D-PHONE"),
    ("call +1 415 555 2671", "D-PHONE"),
    ("call 0049/30/901820", "D-PHONE"),
    ("from 81.2.69.142.", "D-IP"),
    ("from 2a00:1450:4001:81b::200e today", "D-IP"),
    ("card 5500-0055-5555-5559", "D-CARD"),
    ("GB29 NWBK 6016 1331 9268 19", "D-IBAN"),
    ("ssn 078-05-1120", "D-SSN"),
    (f"use {KEY}", "D-SECRET"),
    ("ghp_" + "a1B2" * 9, "D-SECRET"),
    ("postgres://admin:hunter22@db.example.com/x", "D-SECRET"),
    ('{"api_key": "9f8e7d6c5b4a"}', "D-SECRET"),
    ("PASSWORD=corr3ct-h0rse", "D-SECRET"),
    (
        "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        "D-SECRET",
    ),
    ("-----BEGIN OPENSSH " + "PRIVATE KEY-----", "D-PRIVATE-KEY"),
]
NOT_FOUND = [
    "order 4111 1111 1111 1112",  # Luhn fails
    "GB29 NWBK 6016 1331 9268 18",  # the check digits fail
    "the router at 192.168.1.1, localhost 127.0.0.1",
    "version 10.2.300.4 of it",
    "ISBN 978-3-16-148410-0",
    "on 2024-05-06 at 12:30:45, 1990-1995",
    "the key: understanding of tokens",
    "password: password",
    "an @mention and a@b",
    "1234567890123456789012",
    "pi is 3.14159265358979",
    "std::vector::size",
]


@pytest.mark.parametrize(("text", "rule"), FOUND)
def test_a_datum_is_found_once_and_masked(text: str, rule: str) -> None:
    ((found, sample),) = find_personal(text)
    assert found == rule
    assert "*" in sample or "…" in sample
    assert sample not in text
    assert list(find_personal(hide(text))) == []
    assert sample in hide(text)


@pytest.mark.parametrize("text", NOT_FOUND)
def test_a_look_alike_is_not_found(text: str) -> None:
    assert list(find_personal(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "naïve café — “quoted” 漢字 👩‍👩‍👧",
        "می‌خواهم",
        "a < b and [1]",
        "tab\there\r\nline",
        "<b>bold</b> [link](x)",
    ],
)
def test_ordinary_text_of_the_world_gives_no_finding(text: str) -> None:
    assert list(inspect_text(text)) == []
