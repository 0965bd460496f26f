"""The data sets that torchtune builds by name (torchtune/datasets): where their rows come from, and how.

Sources and columns are those of the builders' own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping

SOURCES: Mapping[str, str] = {
    "alpaca_dataset": "tatsu-lab/alpaca",
    "alpaca_cleaned_dataset": "yahma/alpaca-cleaned",
    "grammar_dataset": "liweili/c4_200m",
    "samsum_dataset": "Samsung/samsum",
    "slimorca_dataset": "Open-Orca/SlimOrca-Dedup",
    "stack_exchange_paired_dataset": "lvwerra/stack-exchange-paired",
    "hh_rlhf_helpful_dataset": "RLHFlow/HH-RLHF-Helpful-standard",
    "cnn_dailymail_articles_dataset": "ccdv/cnn_dailymail",
    "wikitext_dataset": "EleutherAI/wikitext_document_level",
    "the_cauldron_dataset": "HuggingFaceM4/the_cauldron",
}
# Our key -> the builder's column, where it is another.
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "grammar_dataset": {"prompt": "input", "completion": "output"},
    "instruct_dataset": {"prompt": "input", "completion": "output"},
    "samsum_dataset": {"prompt": "dialogue", "completion": "summary"},
    "stack_exchange_paired_dataset": {
        "prompt": "question", "chosen": "response_j", "rejected": "response_k",
    },
    "cnn_dailymail_articles_dataset": {"text": "article"},
    "wikitext_dataset": {"text": "page"},
}  # fmt: skip
TEXT = frozenset({"text_completion_dataset", "cnn_dailymail_articles_dataset", "wikitext_dataset"})
PREFERENCES = frozenset({"stack_exchange_paired_dataset", "hh_rlhf_helpful_dataset", "preference_dataset"})
CHATS = PREFERENCES | {"chat_dataset", "slimorca_dataset", "multimodal_chat_dataset"}
