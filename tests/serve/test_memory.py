"""Memory as control groups of either version limit it."""

from __future__ import annotations

import os
from pathlib import Path

from serve.engine.memory import available_bytes, limit_bytes

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def of_process(tmp_path: Path, line: str) -> Path:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(line + "\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 1048576 kB\n")
    return tmp_path / "self"


def test_a_group_of_version_2_or_one_above_it_limits(tmp_path: Path) -> None:
    process = of_process(tmp_path, "0::/a/b")
    groups = tmp_path / "cgroup"
    group(groups / "a" / "b", memory__max="max", memory__current=10)
    assert limit_bytes(process, groups) == MACHINE
    group(groups / "a", memory__max=1000, memory__current=700, memory__stat="anon 600\ninactive_file 100")
    assert limit_bytes(process, groups) == 1000
    assert available_bytes(process, groups, tmp_path / "meminfo") == 400


def test_a_group_of_version_1_limits(tmp_path: Path) -> None:
    process = of_process(tmp_path, "5:cpu,cpuacct:/x\n7:memory:/pod")
    groups = tmp_path / "cgroup"
    pod = groups / "memory" / "pod"
    group(groups / "memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=5)
    assert limit_bytes(process, groups) == MACHINE
    group(pod, memory__limit_in_bytes=2000, memory__usage_in_bytes=1900)
    group(pod, memory__stat="total_inactive_file 50")
    assert limit_bytes(process, groups) == 2000
    assert available_bytes(process, groups, tmp_path / "meminfo") == 150


def test_without_groups_the_machine_decides_and_without_a_machine_nothing_is_known(tmp_path: Path) -> None:
    process = of_process(tmp_path, "0::/")
    assert available_bytes(process, tmp_path / "none", tmp_path / "meminfo") == 2**30
    assert available_bytes(process, tmp_path / "none", tmp_path / "other") is None
    assert limit_bytes(tmp_path / "nobody", tmp_path / "none") == MACHINE
