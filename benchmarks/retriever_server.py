"""How long do clients of the retriever's server wait?

    python benchmarks/retriever_server.py CORPUS QUESTIONS    (both JSONL.gz)
      -> docs/results/retriever_server.json

A BM25 index behind the server, in a process of its own, and 64 clients that keep their connection,
in two ways: each asks again at once ("busy": what the machine can do, shared with the clients), and
each asks about once a second, as an agent does that writes in between ("agents").
"""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import orjson

from mem1.files import atomic_write
from mem1.serve import serve
from mem1.serving import open_port
from mem1.tasks import load_tasks
from mem1.tools import BM25Index

RESULT = Path(__file__).parent.parent / "docs/results/retriever_server.json"
CLIENTS, TOP_K, SECONDS = 64, 3, 15.0


async def ask(url: str, queries: list[str], *, pause_s: float) -> list[float]:
    """Seconds of each request of all clients."""
    waited: list[float] = []
    # Made once: it takes 25 ms, which the other clients would wait for.
    tls = httpx2.create_ssl_context()
    with httpx2.Client(timeout=60, verify=tls) as asks:
        assert asks.get(f"{url}/health").json()["status"] == "ok"
    end = time.perf_counter() + SECONDS

    async def client(number: int) -> None:
        draw = random.Random(number)
        async with httpx2.AsyncClient(timeout=60, verify=tls) as asks:
            await asyncio.sleep(draw.random() * pause_s)
            while time.perf_counter() < end:
                body = {"queries": [draw.choice(queries)], "topk": TOP_K, "return_scores": True}
                started = time.perf_counter()
                answer = await asks.post(f"{url}/retrieve", json=body)
                waited.append(time.perf_counter() - started)
                assert len(answer.json()["result"]) == 1, answer.text
                await asyncio.sleep(2 * draw.random() * pause_s)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return waited


def summary(waited: list[float]) -> dict[str, float]:
    quantiles = {f"p{q}_ms": round(1000 * float(np.percentile(waited, q)), 1) for q in (50, 95, 99)}
    return {"requests_a_second": round(len(waited) / SECONDS), **quantiles}


def main(corpus: Path, questions: Path) -> None:
    queries = [task.objectives[0].question for task in load_tasks(questions)]
    index = BM25Index.open(corpus)
    command = [sys.executable, __file__, "--serve", str(corpus)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        found = {
            way: summary(asyncio.run(ask(url, queries, pause_s=pause_s)))
            for way, pause_s in (("agents", 1.0), ("busy", 0.0))
        }
        server.terminate()
    result = {
        "schema_version": 1,
        "command": "python benchmarks/retriever_server.py CORPUS QUESTIONS",
        "num_passages": len(index),
        "clients": CLIENTS,
        **found,
    }
    atomic_write(RESULT, orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        with open_port("127.0.0.1", 0) as at:
            print(f"http://127.0.0.1:{at.getsockname()[1]}", flush=True)
            serve(BM25Index.open(Path(sys.argv[2])), at=at)
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
