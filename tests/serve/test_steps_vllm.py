"""Steps that groups share, on vLLM's own scheduler without a model: what we rely on is so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from registry.foreign import python

_SCRIPT = """
import json, sys, torch
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager
from serve.engine.steps.scheduler import fair
from serve.engine.steps.tags import tag

config = EngineArgs(model=sys.argv[1], max_model_len=1024, max_num_seqs=16, scheduling_policy="priority",
    kv_cache_memory_bytes=2**28, enforce_eager=True, enable_prefix_caching=False).create_engine_config()
block = config.cache_config.block_size
spec = FullAttentionSpec(block_size=block, num_kv_heads=1, head_size=1, dtype=torch.float32)
config.cache_config.num_gpu_blocks = 60
engine = fair(Scheduler, 64)(vllm_config=config, block_size=block, log_stats=False,
    kv_cache_config=KVCacheConfig(60, [], [KVCacheGroupSpec(["layer"], spec)]),
    structured_output_manager=StructuredOutputManager(config))

def come(name, tokens, priority, arrival):
    sampling = SamplingParams(max_tokens=6, ignore_eos=True)
    asked = Request(name, list(range(tokens)), sampling, None, priority=priority, arrival_time=arrival)
    engine.add_request(asked)

def step():
    chosen = engine.schedule()
    names = list(chosen.num_scheduled_tokens)
    known = [engine.requests[name] for name in names]
    made = [[5] if one.num_computed_tokens >= one.num_prompt_tokens else [] for one in known]
    engine.update_from_output(chosen, ModelRunnerOutput(req_ids=names, req_id_to_index={n: i for i, n in
        enumerate(names)}, sampled_token_ids=made, logprobs=None, prompt_logprobs_dict={}, pooler_output=[]))
    return dict(chosen.num_scheduled_tokens)

for number in range(12):
    come(f"flood {number}", 900, tag(900.0 * number, yields=True), float(number))
steps = [step() for _ in range(20)]
come("light", 300, tag(0.0, yields=False), 99.0)
steps += [step() for _ in range(400)]
sys.stdout.write(json.dumps([steps, engine.has_unfinished_requests()]))
"""


@pytest.mark.slow
def test_vllms_scheduler_heeds_what_it_is_told(base_folder: Path) -> None:
    done = subprocess.run(
        [*python("-c", _SCRIPT), str(base_folder)], capture_output=True, text=True, check=True, timeout=300
    )
    steps, unfinished = json.loads(done.stdout.splitlines()[-1])
    assert not unfinished
    assert all(set(step) == {"flood 0"} or "flood 1" in step for step in steps[:15])
    assert max(sum(size for size in step.values() if size > 1) for step in steps[:20]) <= 64
    assert steps[20]["light"] == 300
    assert [name for name, size in steps[20].items() if size > 1] == ["light"]
    ends = {name: number for number, step in enumerate(steps) for name in step}
    assert ends["light"] < 30 < ends["flood 11"]
