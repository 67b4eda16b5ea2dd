"""A program whose options are the settings of a pydantic model, for benchmarks, studies and scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import BaseModel

from recloop.cli import Config, Help, HelpAll, Words, dispatch, new_app, sorted_words
from recloop.errors import SettingError
from recloop.exits import guarded

Out = Annotated[Path | None, Parameter(name="--out", help="The folder to write into.")]


def settings_command(
    prog: str,
    about: str,
    load: Callable[[], tuple[type[BaseModel], Callable[..., object]]],
    out: str | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """The exit code of a program whose options are settings, ``--config`` and ``--out``.

    Args:
        prog: how it is called, e.g. ``python -m benchmarks.speed``.
        about: what it does, for its help.
        load: -> the class of its settings, and (settings, folder of ``--out``, progress) -> what is printed.
            It imports what reads the number of threads, so it is called once that is set.
        out: the folder where ``--out`` is not given; None for a program that writes nothing and is handed none.
    """
    program = new_app(prog, about, usage=f"{prog} [OPTIONS] [--SETTING VALUE ...]", version_flags=[], help_flags=[])

    @program.default
    def command(
        *words: Words, config: Config = (), folder: Out = None, help: Help = False, help_all: HelpAll = False
    ) -> None:
        from recloop.config import describe_settings, load_config
        from recloop.progress import terminal_progress

        model, work = load()
        if help or help_all:
            program.help_print([])
            print(describe_settings(model, prog, every=help_all))
            return
        names, overrides = sorted_words(words)
        if names:
            raise SettingError(f"{prog} takes settings only, got {' '.join(names)}; write --SETTING VALUE")
        if out is None and folder is not None:
            raise SettingError(f"{prog} writes no files, got --out {folder}; leave it out")
        folders = [] if out is None else [folder or Path(out)]
        print(work(load_config(model, config, overrides), *folders, terminal_progress()))

    words = sys.argv[1:] if argv is None else argv
    return guarded(lambda: dispatch(words, program), is_alone=prog.endswith("speed"))
