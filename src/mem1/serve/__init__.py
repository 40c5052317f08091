"""WHAT OTHERS MAY ASK OVER HTTP: a retriever, by the wire API of Search-R1 and its relatives.

Retriever -> make_app -> serve, at a socket of `mem1.serving.open_port`
"""

from mem1.serve.retriever import Limits, make_app, serve

__all__ = ["Limits", "make_app", "serve"]
