"""Every family of checkpoints that can be read."""

from __future__ import annotations

from search_spaces.pretrained.families.bert import BERT, DISTILBERT, ROBERTA
from search_spaces.pretrained.families.family import Family
from search_spaces.pretrained.families.gpt2 import GPT2
from search_spaces.pretrained.families.llama import LLAMA
from search_spaces.pretrained.families.vit import DEIT, DINOV2, DINOV2_WITH_REGISTERS, VIT

FAMILIES: tuple[Family, ...] = (
    BERT,
    ROBERTA,
    DISTILBERT,
    VIT,
    DEIT,
    DINOV2,
    DINOV2_WITH_REGISTERS,
    LLAMA,
    GPT2,
)
