"""SERVERS OF OUR OWN: started, waited for, and always ended.

    VLLMConfig -> launch_all -> [Server], each a process group behind a guard, its log, its port
    Server.ready()  -> answers; or says what the log says
    Server.stop()   -> the whole group is gone

The guard (`guard`) ends the group as soon as this process is gone, even if it's killed.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from mem1.engines.vllm import guard
from mem1.engines.vllm.config import VLLMConfig
from mem1.errors import ConfigError, ModelError

_log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_LOG_LINES, _LOG_BYTES = 15, 16_384
"""How much of a log an error tells at most."""
_ASK_S, _TELL_S = 0.5, 30.0
"""Seconds between two looks, and between two lines that say that we wait."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Server:
    """A process group that serves HTTP at a port of this machine."""

    name: str
    """For messages."""
    port: int
    log: Path
    process: subprocess.Popen[bytes]
    """The guard."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def last_words(self) -> str:
        """The end of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").rstrip().splitlines()
        return f"its log {self.log} ends:\n" + "\n".join(
            f"  {line}" for line in lines[-_LOG_LINES:]
        )

    async def ready(self, *, timeout_s: float) -> None:
        """Wait until it answers `/health`.

        Raises: ModelError with the end of its log if it ends before, or takes too long.
        """
        started = told = time.monotonic()
        async with httpx2.AsyncClient(timeout=_ASK_S * 4) as client:
            while not await self._answers(client):
                now = time.monotonic()
                if not self.running:
                    raise ModelError(f"{self.name} ended while it started; {self.last_words()}")
                if now - started > timeout_s:
                    raise ModelError(
                        f"{self.name} doesn't serve after {timeout_s:g} s: give it more "
                        f"(engine.start_timeout_s) or see why; {self.last_words()}"
                    )
                if now - told > _TELL_S:
                    told = now
                    waited = now - started
                    _log.warning("%s isn't up after %.0f s; log: %s", self.name, waited, self.log)
                await asyncio.sleep(_ASK_S)

    async def _answers(self, client: httpx2.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.url}/health")).status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self) -> None:
        """End the group, whatever its state. Waits for it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        # Should the guard itself have been killed, its group is left.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def launch_all(config: VLLMConfig, *, folder: Path, scaled: bool) -> list[Server]:
    """The servers that the config wants started, starting. Args: `scaled`, whether they are to tell
    log-probabilities at the sampling temperature."""
    if config.urls:
        return []
    servers: list[Server] = []
    places = config.devices or ("",)
    for number, (devices, port) in enumerate(zip(places, free_ports(len(places)), strict=True)):
        arguments = [config.model, "--host", HOST, "--port", str(port)]
        arguments += ["--served-model-name", config.name, "--enable-prefix-caching"]
        arguments += ["--dtype", config.dtype] if config.dtype else []
        arguments += ["--max-model-len", str(config.window)] if config.window else []
        arguments += ["--logprobs-mode", "processed_logprobs"] if scaled else []
        arguments += ["--tensor-parallel-size", str(devices.count(",") + 1)] if devices else []
        visible = {"CUDA_VISIBLE_DEVICES": devices} if devices else {}
        servers.append(
            launch(
                [*config.command, *arguments, *config.serve_args],
                name=f"vLLM server {number}",
                port=port,
                log=folder / f"vllm-{number}.log",
                # Without it a server takes no weights.
                env={"VLLM_SERVER_DEV_MODE": "1", **visible},
            )
        )
    return servers


def launch(
    command: Sequence[str], *, name: str, port: int, log: Path, env: Mapping[str, str]
) -> Server:
    """Start a server in a process group of its own.

    Args: `env`, added to this process's. Raises: ConfigError if there's no such program.
    """
    found = _program(command[0])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", guard.__file__, found, *command[1:]],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            # Ctrl-C is for us: a run finishes its step first.
            start_new_session=True,
        )
    return Server(name=name, port=port, log=log, process=process)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ConfigError(
            f"engine.command: no program {name!r}: install vLLM (pip install vllm, best in an "
            "environment of its own) and give the path of its vllm, or name running servers with "
            "engine.urls"
        )
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports
