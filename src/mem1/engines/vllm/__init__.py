"""Servers that sample, and take the trainer's weights: `[engine] kind = "vllm"`."""

from mem1.engines.vllm.config import VLLMConfig
from mem1.engines.vllm.engine import VLLMEngine, Weights

__all__ = ["VLLMConfig", "VLLMEngine", "Weights"]
