"""The command line: parse, call, print, exit code.

Exit codes: 0 done, 1 the work failed (one message, no traceback), 2 the command or a setting is wrong,
3 done, but a model behind a server gave some prompts no answer (the summary counts them), 130 interrupted. Anything
else that goes wrong is a defect and shows its traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from recloop import __version__
from recloop.cli_words import Arguments, near, parse, settings_from
from recloop.errors import RecloopError, SettingError
from recloop.experiment.run_folder import PASSING

if TYPE_CHECKING:
    from recloop.experiment.run_folder import RunFolder

METHODS = ("dpo4rec", "rerec", "re2llm")
STAGES = ("prepare", "embed", "sample", "encode", "reward", "pairs", "train", "evaluate", "report")
WITHOUT_SETTINGS = ("resume", "show", "ask", "export")
VERBS = ("run", *STAGES, *WITHOUT_SETTINGS, "evaluate-lm", "pretrain", "bench")

PUT_ASIDE = 3

HELP = """\
recloop closes the loop between a recommender and a language model.

  recloop run METHOD [--config FILE] [--out FOLDER] [--dry-run] [--quick] [--SECTION.FIELD VALUE ...]
      Run a method (dpo4rec, rerec, re2llm) from data to report. --dry-run prints the plan with its tokens and
      time, --quick makes rerec and re2llm small. A folder that holds the same run is continued. With
      --reuse-from FOLDER dpo4rec and rerec do again only what other settings than that run's touch.
      `recloop run METHOD --help` lists all settings.

  recloop prepare | embed | sample | encode | reward | pairs | train | evaluate | report
      The same, up to and including that stage: with settings as above, or with the FOLDER of a run.

  recloop resume FOLDER       Go on where a run was stopped or killed. Settings under --lm.pace, --lm.budget
                              and --lm.prices may change.
  recloop show FOLDER         What a run has done, and its table.
  recloop ask FOLDER "TEXT"   An answer to a request by a rerec run: reasoning, pick, candidates (--user ID).
  recloop ask FOLDER --session "A; B; C" [--candidates "X; Y"]
                              The hint and the list that a re2llm run gives after a session.
  recloop export MODEL OUT    A trained model's folder for vLLM and others; --merge adds an adapter to its base.
  recloop evaluate-lm         How truthfully a language model writes; --tasks N: how well it answers.
  recloop pretrain            Make the bundled language model again.
  recloop bench simulated logs        Does training help where it should, and only there?
  recloop bench reproduction  Published numbers on MovieLens-1M.
  recloop bench quality       The evidence: what is missing; --run UNIT,UNIT does it; --quick a small study.
  recloop bench speed         Every path's speed against a named alternative (--parts NAME,NAME).
  recloop --version | --help

Examples:
  recloop run dpo4rec --out runs/demo
  recloop run dpo4rec --data ml-1m --data.path ../ml-1m --data.users 1000 --out runs/ml-1m
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Threads that spin while they wait slow every other process; threads that sleep slow each other. A
    # measurement has the machine for itself: without a policy threads spin for a while.
    if words[:2] != ["bench", "speed"]:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # One thread is the faster choice beside another job, and a fixed number sums in a fixed order.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    os.environ.setdefault("MKL_CBWR", "AUTO")
    # Imported by others wherever it is installed, it warns on machines without a GPU that it is slow there.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        return dispatch(words)
    except RecloopError as error:
        print(f"recloop: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingError) else 1
    except KeyboardInterrupt:
        print("recloop: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader (`| head`) has left
        return 0


def dispatch(words: Sequence[str]) -> int:
    """Send a command line to what does it; SettingError when there is no such verb."""
    if not words or words[0] in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"recloop {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb in WITHOUT_SETTINGS and "--help" in rest:
        print(HELP, end="")
        return 0
    if verb not in VERBS:
        raise SettingError(f"there is no command {verb}{near(verb, VERBS)}; the commands are {', '.join(VERBS)}")
    if verb == "run" or verb in STAGES:
        arguments = parse(rest, flags=("config", "out", "take-from"), switches=("dry-run", "help", "quick"))
        return run_method(arguments, until=None if verb == "run" else verb)
    if verb == "resume":
        arguments = parse(rest, flags=(), switches=())
        for key, _ in arguments.overrides:
            if not key.startswith(tuple(f"{section}." for section in PASSING)):
                allowed = ", ".join(PASSING)
                raise SettingError(f"resume takes no settings, got --{key}; a run keeps its own, apart from {allowed}")
        return resume(_one_folder(verb, arguments.names), None, arguments.overrides)
    if verb == "show":
        from recloop.evaluation.terminal import show

        print(show(_only_folder(verb, rest)))
        return 0
    if verb == "ask":
        return ask(parse(rest, flags=("user", "session", "candidates"), switches=()))
    if verb == "export":
        return export(parse(rest, flags=(), switches=("merge",)))
    from recloop.cli_tools import run_tool

    return run_tool(verb, rest)


def run_method(arguments: Arguments, until: str | None) -> int:
    """`recloop run` and the stage verbs: a new run, or an old one up to a stage."""
    if len(arguments.names) > 1:
        raise SettingError(f"one method or run folder is wanted, got {' '.join(arguments.names)}; quote or remove")
    name = arguments.names[0] if arguments.names else "dpo4rec"
    if name not in METHODS:
        return _continue_stage(name, arguments, until)
    if until is None and not arguments.names:
        raise SettingError(f"which method? recloop run METHOD; the methods are {', '.join(METHODS)}")
    from recloop.experiment.verbs import require_verb
    from recloop.methods.registry import config_model, forecast_by_name, quick_settings

    config = settings_from(name, config_model(name), arguments)
    if config is None:
        return 0
    require_verb(name, until)
    if "quick" in arguments.flags:
        said = replace(arguments, overrides=(*quick_settings(name, config), *arguments.overrides))
        config = settings_from(name, config_model(name), said) or config
    source = Path(arguments.flags["take-from"]) if "take-from" in arguments.flags else None
    if source is not None:
        from recloop.experiment.reuse import require_source_run

        require_source_run(source, name)
    if "dry-run" in arguments.flags:
        print(forecast_by_name(name, config))
        if source is not None:
            from recloop.experiment.reuse import forecast_of_reuse

            print(forecast_of_reuse(config.model_dump(mode="json"), source))
        return 0
    from recloop.experiment.run_folder import RunFolder

    out = Path(arguments.flags.get("out") or _new_folder(name))
    with RunFolder.open(out, config.model_dump(mode="json"), method=name, passing=PASSING) as run:
        if source is not None:
            from recloop.experiment.reuse import reuse_from

            reuse_from(run, source)
        return _execute(run, until)


def resume(folder: Path, until: str | None, overrides: Sequence[tuple[str, str]] = ()) -> int:
    """Go on with a run with the configuration it was made with.

    Args:
        overrides: settings that decide no result (caps, pace, prices) and may have another value now.
    """
    from recloop.experiment.run_folder import RunFolder

    if not overrides:
        with RunFolder.reopen(folder) as run:
            return _execute(run, until)
    from recloop.config import override
    from recloop.methods.registry import config_model

    with RunFolder.reopen(folder) as run:
        method, old = run.manifest["method"], run.config
    config = override(config_model(method), old, overrides).model_dump(mode="json")
    with RunFolder.open(folder, config, method=method, passing=PASSING) as run:
        return _execute(run, until)


def _continue_stage(name: str, arguments: Arguments, until: str | None) -> int:
    if until is None or not Path(name).is_dir():
        what = "method" if until is None else "method or run folder"
        raise SettingError(f"there is no {what} {name}{near(name, METHODS)}; the methods are {', '.join(METHODS)}")
    if arguments.flags or arguments.overrides:
        given = [*arguments.flags, *(key for key, _ in arguments.overrides)]
        raise SettingError(
            f"{name} goes on with its own configuration, got --{' --'.join(given)}; "
            f"leave the settings out or begin a new run"
        )
    return resume(Path(name), until)


def _execute(run: RunFolder, until: str | None) -> int:
    from recloop.config import validate
    from recloop.methods.registry import config_model, run_by_name
    from recloop.progress import terminal_progress

    method = run.manifest["method"]
    config = validate(config_model(method), run.config)
    try:
        outcome = run_by_name(method, config, run, terminal_progress(), until)
    except KeyboardInterrupt:
        print(f"\nrecloop: interrupted; go on with: recloop resume {run.path}", file=sys.stderr)
        return 130
    from recloop.llm.server.usage_text import num_put_aside

    print(outcome)
    return PUT_ASIDE if num_put_aside(run.manifest["stages"]) else 0


def ask(arguments: Arguments) -> int:
    """An answer to a request, or a list after a session, by the models of a run."""
    from recloop.methods.registry import ask_run

    print(ask_run(arguments.names, arguments.flags, dict(arguments.overrides)))
    return 0


def export(arguments: Arguments) -> int:
    """A model folder, for who serves it."""
    if len(arguments.names) != 2 or arguments.overrides:
        raise SettingError(
            f"export wants a model folder and a new one, got {' '.join(arguments.names) or 'none'}; "
            f"recloop export RUN/lm/trained.s0 OUT [--merge]"
        )
    from recloop.training.export import export_model

    folder, out = map(Path, arguments.names)
    print(export_model(folder, out, merge="merge" in arguments.flags))
    return 0


def _only_folder(verb: str, words: Sequence[str]) -> Path:
    arguments = parse(words, flags=(), switches=())
    if arguments.overrides:
        raise SettingError(f"{verb} takes no settings, got --{arguments.overrides[0][0]}; a run keeps its own")
    return _one_folder(verb, arguments.names)


def _one_folder(verb: str, names: Sequence[str]) -> Path:
    if len(names) != 1:
        raise SettingError(f"{verb} wants one run folder, got {len(names)}; recloop {verb} FOLDER")
    return Path(names[0])


def _new_folder(method: str) -> Path:
    return Path("runs") / f"{method}-{datetime.now():%Y%m%d-%H%M%S}"
