"""The commands that use a finished run; `recloop.cli` names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

from recloop.errors import shown


def _whole(_: type, tokens: Sequence[Token]) -> int:
    """A whole number as it is written; cyclopts alone would read 2.5 as 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"want a whole number, got {tokens[0].value!r}.") from None


Whole = Annotated[int, Parameter(converter=_whole)]


def ask(folder: Path, question: str, /, *, user: str | None = None, candidates: str | None = None) -> None:
    """Ask the models of a finished run.

    A rerec run answers a request. A re2llm run ranks what follows a session,
    whose titles are separated by semicolons.

    For example:
      recloop ask runs/requests "a film by Ann Vale" --user u3
      recloop ask runs/hints "Jaws; Alien" --candidates "Heat; Up"

    Args:
        folder: the run's.
        question: a request, or the titles of a session.
        user: the user whose history the request comes with (rerec).
        candidates: titles to rank, separated by semicolons (re2llm).
    """
    from recloop.experiment.run_folder import RunFolder
    from recloop.methods.method import ask_method
    from recloop.methods.registry import method_named
    from recloop.settings import validate

    options = {"user": user, "candidates": candidates}
    with RunFolder.reopen(folder) as run:
        method = method_named(run.manifest["method"])
        given = {name: text for name, text in options.items() if text is not None}
        print(shown(ask_method(method, validate(method.config, run.config), run, question, **given)))


def score(folder: Path, /, *, lists: Path, out: Path, texts: Path | None = None) -> None:
    """Score candidate lists with the reranker of a finished dpo4rec run.

    No language model is asked: the run has texts about its users, and
    recloop profile writes others.

    For example:
      recloop score runs/demo --lists lists.parquet --out scores.parquet

    Args:
        folder: the run's.
        lists: Parquet, CSV or JSON lines: user_id, item_id, list_id where a user has several; lists not mixed.
        out: a new Parquet file: the same rows with a score.
        texts: a file with user_id and text, in place of the run's texts.
    """
    from recloop.methods.predict import load
    from recloop.methods.use_files import score_file
    from recloop.progress import terminal_progress

    print(shown(score_file(load(folder), lists, out, texts, terminal_progress())))


def profile(folder: Path, /, *, users: Path, out: Path, seed: Whole = 0, tries: Whole = 1) -> None:
    """Write texts about users with the model of a finished dpo4rec run.

    For example:
      recloop profile runs/demo --users histories.csv --out texts.parquet

    Args:
        folder: the run's.
        users: a table of user_id, for users of the log; with item_id, the histories of new users, oldest first.
        out: a new Parquet file with user_id and text.
        seed: of sampling.
        tries: how often a text is drawn at most, until it says nothing untrue of the history; empty if none does.
    """
    from recloop.methods.predict import load
    from recloop.methods.use_files import profile_file
    from recloop.progress import terminal_progress

    print(shown(profile_file(load(folder), users, out, seed, terminal_progress(), tries)))


def serve(
    folder: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: Whole = 8000,
    token_file: Path | None = None,
    llm_waiting: Whole = 8,
    llm_timeout_s: float = 120.0,
    tries: Whole = 1,
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
        tries: how often a text is drawn at most, until it says nothing untrue (dpo4rec); 1 by default.
    """
    from recloop.serving.server import ServeConfig, serve_run
    from recloop.settings import validate

    told = {"host": host, "port": port, "token_file": token_file, "llm_waiting": llm_waiting}
    serve_run(folder, validate(ServeConfig, {**told, "llm_timeout_s": llm_timeout_s, "tries": tries}))


def export(source: Path, out: Path, /, *, merge: bool = False) -> None:
    """Export a run, or a trained model alone, for other programs.

    Of a finished dpo4rec run: its language model, reranker, vectors, scores
    of the test lists and a card.

    For example:
      recloop export runs/demo exported
      recloop export runs/demo/lm/trained.s0 exported

    Args:
        source: a run, or a model's folder, under lm/ in a run's.
        out: a new folder.
        merge: add an adapter to the weights of its base.
    """
    from recloop.experiment.manifest import MANIFEST
    from recloop.training.export import export_model

    if (source / MANIFEST).is_file():
        from recloop.methods.predict import load
        from recloop.methods.use_files import export_run

        print(shown(export_run(load(source), out, merge=merge)))
    else:
        print(shown(export_model(source, out, merge=merge)))


def update(folder: Path, /, *, data: Path, out: Path, items: Path | None = None, rounds: Whole = 0) -> None:
    """Go on with a finished dpo4rec run when there are new interactions.

    Makes a new run: old users stay in their groups, the language model stays
    as it was trained, and only users whose prompt changed are written about
    again. The old run is left as it is, and both are compared on the same
    lists.

    For example:
      recloop update runs/week1 --data week2.csv --out runs/week2

    Args:
        folder: the old run's.
        data: the new interactions, in a table like the old one.
        out: the new run's folder.
        items: what is known of new items, in a table like the old one.
        rounds: of training, beginning with the old run's model.
    """
    from recloop.methods.update import update as update_run

    print(shown(str(update_run(folder, data, out, items=items, rounds=rounds))))
