"""What other trainers call a method, and what it is here.

Owns the answer to an unknown name of a method: the same thing under our name, or the nearest one and why.
"""

from __future__ import annotations

from registry.settings.misspelt import nearest
from registry.settings.models import Advice
from train.settings.methods import LEARNING_RATES

_SAME = {
    "supervised": "sft fine-tune finetune fine-tuning finetuning instruct instruction instruct-tuning "
    "instruction-tuning chat chatml completion supervised-fine-tuning supervised-finetuning",
    "pretrain": "pt cpt clm causal-lm continued-pretraining continual-pretraining pre-training pretraining",
    "reward": "rm reward-model reward-modeling reward-modelling rw",
    "rloo": "reinforce reinforce-leave-one-out",
}
_SAID_ELSEWHERE = {
    "method: {type: dpo, loss: ipo}": "ipo",
    "method: {type: dpo, loss: hinge}": "slic slic-hf hinge",
    "method: {type: dpo, loss: robust, label_smoothing: 0.1}": "cdpo robust-dpo rdpo",
    "method: {type: dpo, supervised_weight: 1.0}": "rpo",
}
_NEAREST = {
    "leave method out: the kind of adapter is lora.kind": "lora qlora dora rslora pissa full peft adapter",
    "use rloo or grpo, which need no value model": "ppo trpo a2c rlhf rl reinforcement",
    "use orpo, which needs no reference either, or dpo": "simpo cpo cposimpo alphapo ropo",
    "use grpo": "dapo gspo dr-grpo drgrpo cispo ebft gdpo reinforce++ vapo sapo",
    "use dpo": "aot apo nca sppo exo bco-pair discopop betadpo wpo sdpo iterative-dpo step-dpo tdpo epo",
    "use kto": "bco unpaired",
    "use rloo or grpo, which draw answers while they train": "online-dpo nash-md xpo raft rejection-sampling "
    "best-of-n self-play spin",
    "use supervised on the teacher's answers": "gkd distillation distill kd minillm gold sdft",
    "use reward, which judges whole answers": "prm process-reward process-reward-model orm "
    "stepwise-supervised",
}


def check_name(name: object) -> None:
    """Refuse a name of a method that is not ours.

    Raises: Advice: with the method to use.
    """
    if isinstance(name, str) and name in LEARNING_RATES:
        return
    fact = f"{name!r} is not a method" if not isinstance(name, str) else f"{name} is not a method"
    raise Advice(fact, _remedy(name) if isinstance(name, str) else _all())


def _remedy(name: str) -> str:
    said = name.strip().lower().replace("_", "-").replace(" ", "-")
    if said in LEARNING_RATES:
        return f"did you mean {said}?"
    for ours, theirs in _SAME.items():
        if said in theirs.split():
            return f"did you mean {ours}?"
    for ours, theirs in _SAID_ELSEWHERE.items():
        if said in theirs.split():
            return f"write {ours}"
    for ours, theirs in _NEAREST.items():
        if said in theirs.split():
            return ours
    near = nearest(said, LEARNING_RATES)
    return f"did you mean {near}?" if near else _all()


def _all() -> str:
    return f"use one of {', '.join(LEARNING_RATES)}"
