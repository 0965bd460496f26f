"""`wardrobe train prove`: the proofs that training adds to a version. Imports nothing heavy at its top."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, common_options, pass_session, user_name
from registry.names import parse_version

if TYPE_CHECKING:
    from train.proving.documents import ProofDocument


@click.command()
@click.argument("name", metavar="NAME@N")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="Precision of the server (default: the base's own, as vLLM does).",
)
@click.option(
    "--reference",
    type=UserPath(exists=True, file_okay=False),
    metavar="DIR",
    help="Compare with this PEFT folder instead of the version's files; stores nothing.",
)
@common_options
@pass_session
def prove(session: Session, name: str, dtype: str | None, reference: Path | None) -> None:
    """Prove that the server serves NAME@N as it was trained.

    Stores two proofs. `parity`: served log-probabilities equal those of transformers and PEFT within
    rounding. `tokens`: the server's prompts are, token by token, those that training renders. Exit 1 if one
    fails; both are stored either way, and may be required before a version becomes stable.
    """
    from registry.names import BASE
    from train.evaluation.models.roster import Roster, adapts_head
    from train.proving.proof import STEPS, Witness, attest
    from train.proving.proof import prove as measure

    adapter, number = parse_version(name)
    key = session.api_key
    with closing(Roster.find(session.root_path, session.url, key, offline=None, need_root=True)) as roster:
        registry = roster.registry
        assert registry is not None, "it was needed"
        version = registry.version(adapter, number)
        head = adapts_head(version)
        if head:
            output.print_notice(
                "it adapts lm_head: each token is asked for by an answer, which takes a while"
            )
        witness = Witness(
            roster.served(name, strict=True, by_answers=head), roster.served(BASE, by_answers=head)
        )
        with output.progress(f"prove {name}", STEPS) as advance:
            proof = measure(registry, version, witness, advance, dtype=dtype, reference=reference)
        if reference is None:
            proof = attest(registry, version, proof, user_name())
    output.print_json(proof) if session.as_json else _print(proof)
    if not proof.passed:
        click.get_current_context().exit(1)


def _print(proof: ProofDocument) -> None:
    found = (("parity", proof.parity), ("tokens", proof.tokens))
    rows = [(kind, "pass" if one.passed else "FAIL", one.sentence) for kind, one in found]
    output.print_table(("proof", "verdict", "because"), rows)
    for one in proof.tokens.left_out:
        output.print_warning(f"left out: {one}")
    output.print_notice(f"{'stored with' if proof.stored else 'not stored with'} {proof.version}")
