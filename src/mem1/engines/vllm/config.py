"""`[engine] kind = "vllm"`: which servers there are, or how they are started. Standard library and
the settings of the HTTP client only."""

from dataclasses import dataclass
from typing import Literal

from mem1.engines.openai import OpenAIConfig
from mem1.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMConfig:
    """`[engine] kind = "vllm"`: servers that sample, each with a copy of the model."""

    kind: Literal["vllm"] = "vllm"
    model: str
    """A Hugging Face folder: its tokenizer, what servers of our own load, and what is trained."""
    urls: tuple[str, ...] = ()
    """Servers that run already, `http://localhost:8000`; none: they're started and stopped."""
    devices: tuple[str, ...] = ()
    """GPUs of each server that is started: `["1", "2,3"]` is one on GPU 1 and one over two. None:
    one server, on what it finds."""
    command: tuple[str, ...] = ("vllm", "serve")
    """What starts a server, followed by the model and its arguments; `vllm` may be the path of one
    in another Python environment."""
    serve_args: tuple[str, ...] = ()
    """More arguments for it, such as `["--gpu-memory-utilization", "0.5"]`."""
    served_name: str | None = None
    """The servers' name of the model; None: `model`."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the weights, in servers of our own and in the trainer. None: as each of them chooses."""
    device: str | None = None
    """The trainer's torch device; None: a GPU if there is one."""
    window: int | None = None
    """Most tokens of prompt + reply; None: what the model has."""
    api_key_env: str = "VLLM_API_KEY"
    """Name of the environment variable that holds the servers' key; it may be unset."""
    concurrency: int = 256
    """Most requests in flight at each server."""
    timeout_s: float = 600.0
    """For one try of a request, and for loading weights."""
    start_timeout_s: float = 900.0
    """For a server to start."""
    retries: int = 2
    """Tries after the first one, if a server is busy or slow."""
    work_dir: str | None = None
    """Folder for weights on their way and for logs, which the servers must see: a file system in
    memory, or one that all machines share. None: the system's folder for temporary files."""
    weights_gap: float = 0.25
    """Most nats, in the mean over a probe's tokens, that a server's log-probabilities may be away
    from the trainer's. A quantized server may need more."""

    def __post_init__(self) -> None:
        if self.urls and self.devices:
            raise ConfigError(
                f"engine.urls = {list(self.urls)} with engine.devices = {list(self.devices)}: "
                "servers that run already have their devices, leave one of the two out"
            )
        if self.model.endswith(".gguf"):
            raise ConfigError(
                f"engine.model = {self.model!r}: servers load weights from a Hugging Face folder, "
                "name one, or set engine.kind = 'local'"
            )
        if not self.command:
            raise ConfigError("engine.command is empty: name what starts a server")

    @property
    def name(self) -> str:
        """What requests call the model."""
        return self.served_name or self.model

    def client(self, url: str) -> OpenAIConfig:
        """Of one server."""
        return OpenAIConfig(
            base_url=f"{url}/v1",
            model=self.name,
            api_key_env=self.api_key_env,
            window=self.window,
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            retries=self.retries,
        )
