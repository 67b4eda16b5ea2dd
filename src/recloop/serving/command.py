"""The command `recloop serve`; what it needs is imported when it is called."""

from __future__ import annotations

from pathlib import Path


def serve(
    folder: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    llm_waiting: int = 8,
    llm_timeout_s: float = 120.0,
) -> None:
    """Serve a run: rankings and texts over HTTP, and a page to try them.

    A run that is not finished shows its progress. Clients show the token in
    RECLOOP_SERVE_TOKEN, where it is set. docs/serve.md lists the requests.

    For example:
      recloop serve runs/demo

    Args:
        folder: the run's.
        host: the address to listen at, 0.0.0.0 for other machines.
        port: 8000 by default, 0 for a free one.
        token_file: a file with the bearer token.
        llm_waiting: requests that may wait for the language model; 8 by default.
        llm_timeout_s: how long each of them waits; 120 s by default.
    """
    from recloop.serving.server import ServeConfig, serve_run
    from recloop.settings import validate

    told = {"host": host, "port": port, "token_file": token_file, "llm_waiting": llm_waiting}
    serve_run(folder, validate(ServeConfig, {**told, "llm_timeout_s": llm_timeout_s}))
