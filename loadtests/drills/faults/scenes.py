"""What fails: the root, the disk, the engine; in each a key is revoked meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import httpx

from loadtests.drills.faults.stage import KEYS_STALE_SECONDS, FaultStage
from loadtests.drills.faults.traffic import CALL_SECONDS
from loadtests.live import wardrobe_json

RESTART_SECONDS = 150.0
"""Longest time for an engine to be back, on a machine that others use too."""

SEEN_SECONDS = 5.0
"""A server tells of a fault, follows a revoked key, and is itself again within this time."""

BACK_SECONDS = 8.0
"""A server that has not reached its root for long tries every 5 s; then a user's next try is answered."""

HANG_SECONDS = 30.0


async def away(stage: FaultStage) -> None:
    """The root is unmounted: 6 s go unnoticed by users, then for longer than keys may be old."""
    users, disk = stage.traffic, stage.disk
    gone = time.monotonic()
    disk.away()
    await asyncio.sleep(6)
    stage.within("told in /readyz", users.seen_after(gone, "degraded"), SEEN_SECONDS)
    disk.back()
    back = time.monotonic()
    await stage.wait(lambda: users.seen_after(back, "ready"), 20)
    stage.within("itself again", users.seen_after(back, "ready"), SEEN_SECONDS)
    failed = users.failures(gone, time.monotonic())
    stage.find("6 s away, users failed", dict(failed) or 0, "none", ok=not failed)

    gone = time.monotonic()
    disk.away()
    code, said, _ = await stage.command("keys", "revoke", stage.leaver_id, root=disk.store)
    stage.find(
        "another machine revokes the key", f"exit {code} {said if code else ''}", "exit 0", ok=code == 0
    )
    await stage.refuses("keys", "revoke", stage.leaver_id)
    call = await stage.admin_call("PUT", f"/admin/v1/adapters/{stage.adapter}/aliases/mine", {"version": 1})
    stage.find("a write over HTTP", call, "503", ok=call.status == 503)
    await stage.wait(lambda: users.seen_after(gone, "not ready"), KEYS_STALE_SECONDS + 10)
    stage.within("the door is closed", users.seen_after(gone, "not ready"), KEYS_STALE_SECONDS + 3)
    closed = time.monotonic()
    early = users.failures(gone, gone + KEYS_STALE_SECONDS - 2)
    stage.find("users failed before", dict(early) or 0, "none", ok=not early)
    let_in = users.last_let_in(gone)
    stage.find("the revoked key last let in", f"after {let_in:.1f} s", "before the door closed",
               ok=let_in <= KEYS_STALE_SECONDS + 3)  # fmt: skip
    await asyncio.sleep(5)
    heard = users.failures(closed + 1, time.monotonic() - 1)
    stage.find(
        "what users hear then",
        dict(heard),
        "503 alone",
        ok=bool(heard) and all(k.startswith("503") for k in heard),
    )
    made = [path.name for path in disk.point.iterdir()]
    stage.find("written into the bare mount point", made or "nothing", "nothing", ok=not made)
    disk.back()
    back = time.monotonic()
    await stage.wait(lambda: users.answered_after(back) and users.refused_after(back), 30)
    stage.within("users are answered again", users.answered_after(back), BACK_SECONDS)
    stage.within("the revoked key is refused", users.refused_after(back), BACK_SECONDS)
    late = users.last_let_in(back)
    stage.find(
        "the revoked key let in after the return", f"{late:.1f} s" if late else "never", "never", ok=not late
    )


async def read_only(stage: FaultStage) -> None:
    """The mount is read-only, an engine dies meanwhile, another machine revokes the key."""
    users, disk = stage.traffic, stage.disk
    stuck = time.monotonic()
    disk.read_only()
    await stage.wait(lambda: users.seen_after(stuck, "degraded"), 20)
    stage.within("told in /readyz", users.seen_after(stuck, "degraded"), SEEN_SECONDS)
    for verb in ("list", "status", "gc"):
        await stage.works(verb)
    await stage.refuses("keys", "revoke", stage.leaver_id)
    await _revoked_elsewhere(stage)
    failed = users.failures(stuck, time.monotonic())
    stage.find("users failed", dict(failed) or 0, "none", ok=not failed)
    await _engine_dies(stage)
    disk.writable()
    await _recovered(stage)


async def full(stage: FaultStage) -> None:
    """The disk has not one byte left: what takes away works, an engine dies meanwhile, gc frees."""
    users, disk = stage.traffic, stage.disk
    code, said, _ = await stage.command("rollout", "start", f"{stage.adapter}@2", "--policy", "low-traffic")
    stage.find("a rollout is open", f"exit {code} {said if code else ''}", "exit 0", ok=code == 0)
    stuck = time.monotonic()
    disk.fill()
    await stage.wait(lambda: users.seen_after(stuck, "degraded"), 30)
    stage.within("told in /readyz", users.seen_after(stuck, "degraded"), 15)
    for verb in ("list", "status", "gc"):
        await stage.works(verb)
    await stage.works("rollout", "abort", stage.adapter, "--why", "drill")
    revoked = time.monotonic()
    await stage.works("keys", "revoke", stage.leaver_id)
    await stage.wait(lambda: users.refused_after(revoked), 20)
    stage.within("the revoked key is refused", users.refused_after(revoked), 30)
    late = users.last_let_in(revoked)
    stage.find("the revoked key last let in", f"after {late:.1f} s", "as the command ran", ok=late <= 30)
    failed = users.failures(stuck, time.monotonic())
    stage.find("users failed", dict(failed) or 0, "none", ok=not failed)
    refused = sum(one.status in {503, 507} for one in users.rated if one.began >= stuck)
    stage.find("ratings refused, not lost", refused, "some", ok=refused > 0)
    await _engine_dies(stage)
    await stage.works("delete", f"{stage.adapter}@3")
    before = os.statvfs(disk.store).f_bavail
    await stage.works("gc", "--apply", "--now")
    freed = (os.statvfs(disk.store).f_bavail - before) * os.statvfs(disk.store).f_frsize
    stage.find("freed by gc --apply --now", f"{freed} bytes", "more than 0, at once", ok=freed > 0)
    disk.empty()
    await _recovered(stage)


async def engine(stage: FaultStage) -> None:
    """The engine is stopped (SIGSTOP): no step is made while everything else looks alive."""
    users = stage.traffic
    stopped = time.monotonic()
    for pid in stage.live.children("EngineCore"):
        os.kill(pid, signal.SIGSTOP)
    await stage.works("keys", "revoke", stage.leaver_id)
    await stage.wait(lambda: users.refused_after(stopped), 20)
    stage.within("the revoked key is refused", users.refused_after(stopped), 30)
    await stage.wait(lambda: users.seen_after(stopped, "not ready", "starting"), 4 * HANG_SECONDS)
    stage.within("told in /readyz", users.seen_after(stopped, "not ready", "starting"), HANG_SECONDS + 15)
    told = time.monotonic()
    await stage.wait(lambda: users.answered_after(told), RESTART_SECONDS)
    stage.within("users are answered again", users.answered_after(stopped), HANG_SECONDS + RESTART_SECONDS)
    heard = users.failures(stopped, time.monotonic())
    ends = [one.ended - stopped for one in users.asked if one.began < stopped + 5 and one.status != 200]
    longest = max(ends, default=0.0)
    stage.find("what users heard", dict(heard), "5xx with a reason, no cut connection",
               ok=all(kind.startswith("50") for kind in heard))  # fmt: skip
    stage.within("those who waited were told", longest, HANG_SECONDS + 20)


async def evidence(stage: FaultStage) -> None:
    """One client sends what always fails, what is malformed, and what it cancels, to a good canary."""
    policy = stage.disk.store.parent / "policy.yaml"
    policy.write_text(
        "name: drill\nsteps: [{weight: 50%, min_units: 100000, min_seconds: 0, max_seconds: 36000}]\n"
        "guard: {window_seconds: 20, min_requests: 10, latency_factor: 10}\n"
    )
    code, said, _ = await stage.command("rollout", "start", f"{stage.adapter}@2", "--policy", str(policy))
    stage.find("a rollout is open", f"exit {code} {said if code else ''}", "exit 0", ok=code == 0)
    await stage.wait(lambda: False, 10)
    began = time.monotonic()
    heard: dict[str, int] = {}
    async with httpx.AsyncClient(base_url=stage.live.url, timeout=CALL_SECONDS) as client:
        for number in range(40):
            for name, more in _always_failing().items():
                body = {"model": stage.adapter, "max_tokens": 4, "user": f"{name}-{number}",
                        "messages": [{"role": "user", "content": f"{name} {number}"}], **more}  # fmt: skip
                call, _ = await stage.traffic.call(client, "/v1/chat/completions", body, stage.traffic.key)
                heard[f"{name}: {call}"] = heard.get(f"{name}: {call}", 0) + 1
    async with httpx.AsyncClient(base_url=stage.live.url, timeout=0.3) as client:
        for number in range(40):
            body = {"model": stage.adapter, "max_tokens": 200, "user": f"left-{number}",
                    "messages": [{"role": "user", "content": f"left {number}"}]}  # fmt: skip
            call, _ = await stage.traffic.call(client, "/v1/chat/completions", body, stage.traffic.key)
            heard[f"left: {call}"] = heard.get(f"left: {call}", 0) + 1
    refused = sum(count for kind, count in heard.items() if ": 400 " in kind)
    stage.find("40 of each of 4 kinds refused", refused, "160", ok=refused == 160)
    left = sum(count for kind, count in heard.items() if kind.startswith("left: 0 "))
    stage.find("40 clients left before their answer", left, "most", ok=left >= 30)
    await asyncio.sleep(5)
    found = await asyncio.to_thread(wardrobe_json, stage.disk.point, "rollout", "status", stage.adapter)
    state = str(found["state"])
    stage.find("the rollout", state, "goes on", ok=state == "ramping")
    failed = stage.traffic.failures(began, time.monotonic())
    stage.find("other users failed", dict(failed) or 0, "none", ok=not failed)
    await stage.works("rollout", "abort", stage.adapter, "--why", "drill")
    await stage.works("keys", "revoke", stage.leaver_id)


def _always_failing() -> dict[str, dict[str, object]]:
    return {
        "grammar": {"structured_outputs": {"grammar": "root ::= root"}},
        "schema": {"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"$ref": "#"}}}},
        "transfer": {"vllm_xargs": {"kv_transfer_params": {"do_remote_decode": True}}},
        "malformed": {"temperature": "hot"},
    }  # fmt: skip


async def _revoked_elsewhere(stage: FaultStage) -> None:
    code, said, _ = await stage.command("keys", "revoke", stage.leaver_id, root=stage.disk.store)
    revoked = time.monotonic()
    stage.find(
        "another machine revokes the key", f"exit {code} {said if code else ''}", "exit 0", ok=code == 0
    )
    await stage.wait(lambda: stage.traffic.refused_after(revoked), 20)
    stage.within("the revoked key is refused", stage.traffic.refused_after(revoked), SEEN_SECONDS)


async def _engine_dies(stage: FaultStage) -> None:
    users, died = stage.traffic, time.monotonic()
    os.kill(stage.live.children("serve.engine.child")[0], signal.SIGKILL)
    users.forgive(died)
    await asyncio.sleep(1)
    await stage.wait(lambda: users.answered_after(died + 1), RESTART_SECONDS)
    stage.within("kill -9 of the engine: answers again", users.answered_after(died + 1), RESTART_SECONDS)


async def _recovered(stage: FaultStage) -> None:
    users, better = stage.traffic, time.monotonic()
    await stage.wait(lambda: users.seen_after(better, "ready"), 60)
    stage.within("itself again", users.seen_after(better, "ready"), 30)
