"""THE OPEN WEB: a search API as a `Retriever`, and a tool that reads pages.

    <search>words</search>          SearchTool(WebSearch("serper"))  -> title, snippet, address
    <fetch>address words</fetch>    FetchTool()                      -> passages of the page

A model chooses the addresses and strangers write the pages: see `guard`, `client` and `extract`.
"""

from mem1.tools.web.client import Limits, WebReply, WebRequest
from mem1.tools.web.config import WebConfig, web_tools
from mem1.tools.web.fetch import FetchTool
from mem1.tools.web.guard import Guard, PageError
from mem1.tools.web.providers import PROVIDERS
from mem1.tools.web.recording import Recording
from mem1.tools.web.search import WebSearch

__all__ = [
    "PROVIDERS",
    "FetchTool",
    "Guard",
    "Limits",
    "PageError",
    "Recording",
    "WebConfig",
    "WebReply",
    "WebRequest",
    "WebSearch",
    "web_tools",
]
