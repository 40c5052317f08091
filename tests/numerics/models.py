"""Small random models whose attention is not trivial, and that compute in float64 if asked to."""

from typing import Any

import torch
import transformers

VOCAB = 512
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 2048,
}
CONFIGS = {
    "qwen2": lambda: transformers.Qwen2Config(
        **_SIZES, num_key_value_heads=2, tie_word_embeddings=True
    ),
    "qwen3": lambda: transformers.Qwen3Config(**_SIZES, num_key_value_heads=2, head_dim=32),
    "llama": lambda: transformers.LlamaConfig(**_SIZES, num_key_value_heads=3),
}


def random_model(kind: str, *, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.06)
            elif "bias" in name:
                parameter.normal_(0, 0.3)
    if dtype is torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                _keep_wide(module)
    return model.to(dtype).eval()


def _keep_wide(norm: Any) -> None:
    """transformers' norms compute in float32 whatever the model is in: rounding that float64 can't
    undo."""

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        mean = hidden.pow(2).mean(-1, keepdim=True)
        return norm.weight * hidden * torch.rsqrt(mean + norm.variance_epsilon)

    norm.forward = forward
