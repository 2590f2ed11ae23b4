"""Every family of checkpoints that can be read."""

from __future__ import annotations

from search_spaces.pretrained.family import Family
from search_spaces.pretrained.gpt2 import GPT2
from search_spaces.pretrained.llama import LLAMA

FAMILIES: tuple[Family, ...] = (LLAMA, GPT2)
