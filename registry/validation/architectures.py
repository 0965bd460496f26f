"""Which architectures take a LoRA on their embeddings in vLLM 0.32.

vLLM wraps every linear layer, but an embedding or an output head only where the model's class lists it in
`embedding_modules`; anywhere else loading the adapter fails. A test compares these names with vLLM's source.
An architecture that is not named takes none, which vLLM's loader would say too, only later.
"""

from __future__ import annotations

INPUT_EMBEDDING = "embed_tokens"
OUTPUT_EMBEDDING = "lm_head"

_INPUT_AND_OUTPUT = frozenset({
    "ApertusForCausalLM", "DeciLMForCausalLM", "Ernie4_5ForCausalLM", "Exaone4ForCausalLM",
    "ExaoneMoEForCausalLM", "FalconH1ForCausalLM", "GraniteForCausalLM", "GraniteMoeForCausalLM",
    "GraniteMoeHybridForCausalLM", "GraniteMoeSharedForCausalLM", "HyperCLOVAXForCausalLM",
    "InternLM3ForCausalLM", "IQuestCoderForCausalLM", "JambaForCausalLM", "Lfm2ForCausalLM",
    "Lfm2MoeForCausalLM", "LlamaForCausalLM", "LLaMAForCausalLM", "Llama4ForCausalLM", "MiniCPMForCausalLM",
    "MiniCPM3ForCausalLM", "MixtralForCausalLM", "NemotronForCausalLM", "NemotronHForCausalLM",
    "Phi3ForCausalLM", "PhiMoEForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForCausalLM", "SolarForCausalLM", "TeleChat2ForCausalLM",
})  # fmt: skip
_INPUT_ONLY = frozenset({
    "ArceeForCausalLM", "CohereForCausalLM", "Cohere2ForCausalLM", "CwmForCausalLM", "FlexOlmoForCausalLM",
    "GlmForCausalLM", "HunYuanDenseV1ForCausalLM", "HunYuanMoEV1ForCausalLM", "OlmoForCausalLM",
    "Olmo2ForCausalLM", "Olmo3ForCausalLM", "PhiForCausalLM", "SeedOssForCausalLM", "SmolLM3ForCausalLM",
    "Starcoder2ForCausalLM", "VaultGemmaForCausalLM",
})  # fmt: skip


def embeddings_with_lora(architecture: str) -> frozenset[str]:
    """Return which of `embed_tokens` and `lm_head` can carry a LoRA in models of `architecture`."""
    if architecture in _INPUT_AND_OUTPUT:
        return frozenset({INPUT_EMBEDDING, OUTPUT_EMBEDDING})
    return frozenset({INPUT_EMBEDDING}) if architecture in _INPUT_ONLY else frozenset()
