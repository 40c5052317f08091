"""THE RETRIEVER'S PAGE for people: what can be asked, in one HTML file without scripts."""

import json
from html import escape
from typing import Any

_EXAMPLE = """curl -H 'Content-Type: application/json' \\
  -d '{"queries": ["Who wrote Dracula?"], "topk": 3, "return_scores": true}' \\
  ADDRESS/retrieve"""
_STYLE = "body{font:16px/1.5 sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}"


def page(openapi: dict[str, Any]) -> str:
    """Args: `openapi`, what the application says of itself."""
    rows = "".join(
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(operation.get('description', ''))}</p>{_body(operation)}"
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>mem1 retriever</title><style>{_STYLE}</style><h1>mem1 retriever</h1>"
        f"<pre>{escape(_EXAMPLE)}</pre>{rows}"
        "<p>For programs: <a href=openapi.json>openapi.json</a></p></html>\n"
    )


def _body(operation: dict[str, Any]) -> str:
    if "requestBody" not in operation:
        return ""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return f"<pre>{escape(json.dumps(schema['properties'], indent=2))}</pre>"
