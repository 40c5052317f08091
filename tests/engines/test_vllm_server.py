"""Servers of our own are waited for, say why they died, and never outlive us."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mem1.engines.vllm import VLLMConfig
from mem1.engines.vllm import server as vllm_server
from mem1.engines.vllm.server import Server, free_ports, launch, launch_all
from mem1.errors import ConfigError, ModelError

SERVES = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
print("worker", child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""A server with a worker, which it doesn't end itself."""


def start(tmp_path: Path, program: str) -> Server:
    (port,) = free_ports(1)
    command = [sys.executable, "-c", program, str(port)]
    return launch(command, name="server 0", port=port, log=tmp_path / "log", env={})


def worker(log: Path) -> int:
    deadline = time.monotonic() + 20
    while "\n" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(log.read_text().split()[1])


def lives(process: int) -> bool:
    """Whether it runs; one that nobody waits for doesn't."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def ends(process: int) -> bool:
    deadline = time.monotonic() + 20
    while lives(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not lives(process)


def test_a_server_that_is_ready_is_stopped_with_its_workers(tmp_path):
    server = start(tmp_path, SERVES)
    asyncio.run(server.ready(timeout_s=30))
    assert server.running
    pid = worker(server.log)
    server.stop()
    assert not server.running
    assert ends(pid)


def test_a_server_ends_when_we_are_killed(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from test_vllm_server import SERVES, start
print(start(Path({str(tmp_path)!r}), SERVES).process.pid, flush=True)
time.sleep(99)
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    us = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stdout=-1
    )
    assert us.stdout is not None
    guard = int(us.stdout.readline())
    pid = worker(tmp_path / "log")
    us.send_signal(signal.SIGKILL)
    us.wait()
    assert ends(guard)
    assert ends(pid)


def test_a_server_that_dies_is_told_with_the_end_of_its_log(tmp_path):
    server = start(tmp_path, "print('no memory left'); raise SystemExit(1)")
    with pytest.raises(ModelError, match=r"server 0 ended while it started.*\n  no memory left"):
        asyncio.run(server.ready(timeout_s=30))
    server.stop()


def test_what_a_dead_server_has_left_is_ended(tmp_path):
    server = start(tmp_path, SERVES.partition("class")[0])
    pid = worker(server.log)
    assert ends(pid)
    server.stop()


def test_a_server_that_takes_too_long_is_told_with_the_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_server, "_ASK_S", 0.05)
    server = start(tmp_path, "import time; time.sleep(99)")
    with pytest.raises(ModelError, match=r"after 0\.2 s: give it more \(engine.start_timeout_s\)"):
        asyncio.run(server.ready(timeout_s=0.2))
    server.stop()


def test_a_program_that_is_not_there_is_told_with_the_ways_out(tmp_path):
    config = VLLMConfig(model="m", command=("no-such-vllm", "serve"))
    with pytest.raises(ConfigError, match="no program 'no-such-vllm': install vLLM"):
        launch_all(config, folder=tmp_path, scaled=False)


def test_each_server_gets_its_devices_and_arguments(tmp_path):
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\necho $CUDA_VISIBLE_DEVICES $VLLM_SERVER_DEV_MODE "$@"\n')
    show.chmod(0o755)
    config = VLLMConfig(
        model="m",
        command=(str(show),),
        devices=("1", "2,3"),
        dtype="bfloat16",
        window=512,
        serve_args=("--enforce-eager",),
    )
    servers = launch_all(config, folder=tmp_path, scaled=True)
    for server in servers:
        server.process.wait()
    common = "--enable-prefix-caching --dtype bfloat16 --max-model-len 512 --logprobs-mode "
    common += "processed_logprobs --tensor-parallel-size"
    assert [server.log.read_text() for server in servers] == [
        f"{devices} 1 m --host 127.0.0.1 --port {server.port} --served-model-name m "
        f"{common} {size} --enforce-eager\n"
        for server, devices, size in zip(servers, ("1", "2,3"), (1, 2), strict=True)
    ]
