"""What the command line prints cannot be bent by what it is about."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest

from registry.cli import output
from registry.errors import CONTINUED, NotFound, UsageError


def test_control_characters_and_lone_surrogates_are_shown_not_sent() -> None:
    assert output.shown("plain Straße 文") == "plain Straße 文"
    assert output.shown("a\x1b[31mred\x07\r\nb") == "a\\x1b[31mred\\x07\\r\\nb"
    assert output.shown("\udcff\u202e") == "\\xff\\u202e"


def test_an_error_of_several_facts_has_a_line_for_each_and_no_other_line_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = CONTINUED.join(["say a", "x.yaml:3: unknown setting b\nerror: c"])
    output.print_error(UsageError("x.yaml:2", "unknown setting a", facts))
    lines = ["error: x.yaml:2: unknown setting a; say a", "       x.yaml:3: unknown setting b\\nerror: c"]
    assert capsys.readouterr().err.splitlines() == lines


def test_a_table_in_a_pipe_is_never_cut_and_keeps_markup_as_text() -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        output.print_table(("name", "count#"), [("[red]x[/red]", "7"), ("y" * 500, "12"), ("z\x1b[2J", "1")])
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "[red]x[/red]", "y" * 500, "z\\x1b[2J"]
    assert lines[0].endswith("COUNT")
    assert "\x1b" not in out.getvalue()


def test_an_error_is_one_line_and_with_json_also_a_json_line() -> None:
    err = io.StringIO()
    with redirect_stderr(err):
        output.print_error(
            NotFound("support@9", "does not exist\nreally", "see `wardrobe list`"), as_json=True
        )
    line, document = err.getvalue().splitlines()
    assert line == "error: support@9: does not exist\\nreally; see `wardrobe list`"
    assert '"code": "not_found"' in document


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (19_500_000, "19.5 MB"), (2 * 10**15, "2000.0 TB")]
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert output.amount(size) == text


def test_without_a_terminal_progress_says_nothing() -> None:
    err = io.StringIO()
    with redirect_stderr(err), output.progress("verify", 2) as advance:
        advance(1)
        advance(1)
    assert err.getvalue() == ""
