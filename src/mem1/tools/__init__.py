"""WHAT THE AGENT MAY CALL."""

from mem1.tools.base import Tool
from mem1.tools.bm25 import BM25Index
from mem1.tools.http import HTTPRetriever
from mem1.tools.search import Passage, Retriever, SearchTool
from mem1.tools.toolbox import FunctionTool, Toolbox, TypedTool

__all__ = [
    "BM25Index",
    "FunctionTool",
    "HTTPRetriever",
    "Passage",
    "Retriever",
    "SearchTool",
    "Tool",
    "Toolbox",
    "TypedTool",
]
