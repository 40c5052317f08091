"""WebConfig -> the tools of the open web."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mem1.errors import ConfigError
from mem1.tools.base import Tool
from mem1.tools.search import SearchTool
from mem1.tools.web.fetch import PASSAGE_CHARS, FetchTool
from mem1.tools.web.providers import ProviderName
from mem1.tools.web.recording import Mode, Recording
from mem1.tools.web.search import WebSearch

TOKEN_CHARS = 4
"""Characters of a page that are worth handing over for each token that an observation may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """`[retriever] kind = "web"`: which search API, and whether its answers are kept."""

    kind: Literal["web"] = "web"
    provider: ProviderName
    """Its key is read from SERPER_API_KEY, SERPAPI_API_KEY, BRAVE_API_KEY or TAVILY_API_KEY;
    SearXNG has none."""
    url: str | None = None
    """Where the API is; None: the provider's own address, which SearXNG hasn't."""
    top_k: int = 5
    """Results an observation shows."""
    read: bool = True
    """Whether the agent may read pages, by `fetch`."""
    mode: Mode = "live"
    """`record` keeps what the web says and asks for what isn't kept yet; `replay` never asks."""
    recording: str | None = None
    """The folder of what is kept; `record` and `replay` need it."""

    def __post_init__(self) -> None:
        if self.mode != "live" and not self.recording:
            raise ConfigError(
                f"retriever.mode {self.mode!r} needs a folder: set retriever.recording"
            )


def web_tools(config: WebConfig, *, observation_tokens: int) -> list[Tool]:
    """`search`, and `fetch` if the agent may read. Args: `observation_tokens`, their budget.

    Raises: ConfigError for a missing key or folder; MissingExtraError if pages can't be read.
    """
    folder = Path(config.recording) if config.recording else None
    recording = Recording(folder, mode=config.mode)
    search = WebSearch(config.provider, url=config.url, recording=recording, show_urls=config.read)
    tools: list[Tool] = [SearchTool(search, top_k=config.top_k)]
    if config.read:
        chars = max(PASSAGE_CHARS, TOKEN_CHARS * observation_tokens)
        tools.append(FetchTool(max_chars=chars, recording=recording))
    return tools
