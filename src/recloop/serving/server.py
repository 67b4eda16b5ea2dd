"""The process of `recloop serve`: its socket, its signals, and its end."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from recloop.errors import SettingError, needs_extra

with needs_extra("serve"):
    import uvicorn

    from recloop.serving.app import make_app
    from recloop.serving.guard import Guard, log_line
    from recloop.serving.service import Service

if TYPE_CHECKING:
    from recloop.methods.predict import FinishedRun

TOKEN = "RECLOOP_SERVE_TOKEN"
LOCAL = ("127.0.0.1", "::1", "localhost")
MIN_TOKEN_CHARS = 16
GRACE_S = 30
BACKLOG = 2048


class ServeConfig(BaseModel, frozen=True, extra="forbid"):
    """How a run is served."""

    host: str = Field("127.0.0.1", description="the address to listen at; 0.0.0.0 for other machines")
    port: int = Field(8000, ge=0, le=65_535, description="0 for a free one")
    token_file: Path | None = Field(None, description=f"holds the bearer token, in place of the variable {TOKEN}")
    llm_waiting: int = Field(8, ge=0, le=10_000, description="requests that may wait for the language model")
    llm_timeout_s: float = Field(120.0, gt=0, le=3_600, description="how long each of them waits")
    tries: int = Field(1, ge=1, le=1_000, description="draws of a text at most, until it is true; 1 does not check")


class _Server(uvicorn.Server):
    """uvicorn's server, which answers those who wait for a model when it is told to stop, and then ends with 0."""

    service: Service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.service.close()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def serve_run(run: Path, config: ServeConfig, finished: FinishedRun | None = None) -> None:
    """Serve a run until SIGTERM or Ctrl-C; requests in flight are answered first.

    Args:
        finished: as `Service` takes it.

    Raises:
        RunError: the folder is no run.
        SettingError: an address that cannot be listened at, or a token that is none.
    """
    token = read_token(config.token_file)
    waiting, tries = config.llm_waiting, config.tries
    service = Service(run, llm_waiting=waiting, llm_s=config.llm_timeout_s, tries=tries, finished=finished)
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        listening = socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingError(
            f"{config.host}:{config.port} cannot be listened at ({error}); use another --port"
        ) from error
    port = listening.getsockname()[1]
    url = f"http://{f'[{config.host}]' if ':' in config.host else config.host}:{port}"
    log_line(sys.stdout, "serving", run=run.name, method=service.method, url=url, has_token=token is not None)
    is_local = config.host in LOCAL
    if token is None and not is_local:
        log_line(sys.stdout, "warning", message=f"anybody who reaches {url} may ask; set {TOKEN} or --token-file")
    sys.stdout.flush()
    hosts = None if token is not None or not is_local else frozenset({*LOCAL, "[::1]"})
    guarded = Guard(make_app(service), service.metrics, token, hosts=hosts)
    server = _Server(
        uvicorn.Config(
            guarded, access_log=False, log_config=None, lifespan="on", server_header=False,
            timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=30,
        )
    )  # fmt: skip
    server.service = service
    server.run([listening])
    log_line(sys.stdout, "stopped")


def read_token(file: Path | None) -> str | None:
    """The bearer token of a file or of the environment; None where neither names one.

    Raises:
        SettingError: no file, or a token that is short or could not stand in a header.
    """
    if file is None and TOKEN not in os.environ:
        return None
    where = TOKEN if file is None else str(file)
    try:
        token = (os.environ[TOKEN] if file is None else file.read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{where} must hold a token, got {error}; check --token-file") from error
    if len(token) < MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingError(
            f"a token must be {MIN_TOKEN_CHARS} printable characters or more without spaces, got {len(token)} in "
            f"{where}; make one with: openssl rand -hex 32"
        )
    return token
