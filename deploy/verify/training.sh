#!/usr/bin/env bash
# Verify training on several GPUs against one: data parallel, and FSDP 2. It was written without a GPU: read it first.
#   deploy/verify/training.sh BASE_MODEL_FOLDER [PROCESSES, default 2]
# It works in a new folder under TMPDIR, leaves it there, and prints where. wardrobe must be on PATH.
set -euo pipefail
[ $# -ge 1 ] && [ $# -le 2 ] || { echo "usage: $0 BASE_MODEL_FOLDER [PROCESSES]" >&2; exit 2; }
base=$(cd "$1" && pwd) processes=${2:-2}
work=$(mktemp -d "${TMPDIR:-/tmp}/wardrobe-verify-XXXXXX")
cd "$work"
say() { printf '\n== %s\n' "$*"; }
w() { wardrobe --root "$work/root" "$@"; }
w init --base "$base"

python3 - "$processes" <<'PYTHON'
import json, sys
from pathlib import Path

processes = int(sys.argv[1])
rows = [{"prompt": f"What is {n} plus {n + 1}?", "completion": f"It is {2 * n + 1}."} for n in range(96)]
pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "I do not know."} for row in rows]
for name, lines in (("rows", rows), ("pairs", pairs)):
    Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
for method, data in (("supervised", "rows"), ("dpo", "pairs")):
    for kind, batch in (("one", 2 * processes), ("several", 2), ("fsdp", 2)):
        training = {"steps": 8, "batch_size": batch, "max_length": 128, "grouping": "random"}
        document = {
            "name": f"{method}-{kind}", "method": method,
            "data": {"train": f"{data}.jsonl", "eval": f"{data}.jsonl"},
            "training": training, "checkpoints": {"every": 4},
        }
        Path(f"{method}-{kind}.json").write_text(json.dumps(document))
common = f"compute_environment: LOCAL_MACHINE\nmixed_precision: 'no'\nnum_machines: 1\nnum_processes: {processes}\n"
Path("several.yaml").write_text(common + "distributed_type: MULTI_GPU\n")
Path("fsdp.yaml").write_text(common + """distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_reshard_after_forward: true
  fsdp_offload_params: false
  fsdp_cpu_ram_efficient_loading: false
  fsdp_state_dict_type: FULL_STATE_DICT
""")
PYTHON

for method in supervised dpo; do
  say "$method: one GPU, then $processes by copies, then $processes by pieces (FSDP 2)"
  w train run "$method-one.json" --json >"$method-one.out"
  for kind in several fsdp; do
    w train run "$method-$kind.json" --json -- --config_file "$kind.yaml" >"$method-$kind.out"
  done
done

say "stopped by SIGTERM and resumed, by pieces"
sed 's/supervised-fsdp/resumed/; s/"steps": 8/"steps": 400/; s/"every": 4/"every": 100/' supervised-fsdp.json >resumed.json
w train run resumed.json --json -- --config_file fsdp.yaml >resumed.out & run=$!
sleep "${STOP_AFTER:-60}"
kill -TERM "$run"
wait "$run" && echo "it had ended before it was stopped: set STOP_AFTER to less than ${STOP_AFTER:-60}"
w train run resumed.json --resume --json -- --config_file fsdp.yaml >resumed.out

say "held-out losses: within 2 % of the one GPU's"
python3 - <<'PYTHON'
import json
from pathlib import Path

def loss(name):
    return json.loads(Path(f"{name}.out").read_text())["eval_loss"]

failed = False
for method in ("supervised", "dpo"):
    one = loss(f"{method}-one")
    for kind in ("several", "fsdp"):
        found = loss(f"{method}-{kind}")
        good = abs(found - one) <= 0.02 * abs(one)
        failed |= not good
        print("ok " if good else "BAD", f"{method}-{kind}", f"{found:.4f} (one GPU: {one:.4f})")
raise SystemExit(failed)
PYTHON

say "DeepSpeed is refused in words, before any process starts"
printf 'compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2}\nnum_processes: %s\n' \
  "$processes" >deepspeed.yaml
if w train run supervised-one.json -- --config_file deepspeed.yaml; then echo "BAD: it was not refused" >&2; exit 1; fi
say "done; everything is in $work"
