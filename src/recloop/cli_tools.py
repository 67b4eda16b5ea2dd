"""The commands around the methods: pretrain, evaluate-lm and the benches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recloop.cli_words import Arguments, near, parse, settings_from
from recloop.errors import SettingError

BENCHES = ("simulated", "reproduction", "quality", "speed")


def run_tool(verb: str, words: Sequence[str]) -> int:
    """The commands around the methods: pretrain, evaluate-lm, bench."""
    switches = ("help", "quick") if words[:1] == ["quality"] else ("help",)
    flags = ("config",) if verb == "evaluate-lm" else ("config", "out")  # it prints, and writes nothing
    arguments = parse(words, flags=flags, switches=switches)
    if verb == "bench":
        return _bench(arguments)
    if arguments.names:
        raise SettingError(f"{verb} takes settings only, got {' '.join(arguments.names)}; write --SETTING VALUE")
    from recloop.progress import terminal_progress

    if verb == "pretrain":
        from scripts.pretrain_lm.pretrain import PretrainConfig, pretrain

        config = settings_from("pretrain", PretrainConfig, arguments)
        if config is not None:
            print(pretrain(config, Path(arguments.flags.get("out", "runs/pretrain")), terminal_progress()))
        return 0
    from scripts.evaluate_lm.cli import EvaluateLmConfig, evaluation_text

    config = settings_from("evaluate-lm", EvaluateLmConfig, arguments)
    if config is not None:
        print(evaluation_text(config, terminal_progress()))
    return 0


def _bench(arguments: Arguments) -> int:
    name = arguments.names[0] if len(arguments.names) == 1 else ""
    if name not in BENCHES:
        got = " ".join(arguments.names) or "none"
        raise SettingError(f"which bench? got {got}{near(got, BENCHES)}; the benches are {', '.join(BENCHES)}")
    from recloop.progress import terminal_progress

    out = Path(arguments.flags.get("out", f"runs/bench-{name}"))
    match name:
        case "simulated":
            from benchmarks.simulated_data import SimulatedBenchConfig, bench_simulated

            simulated_logs = settings_from("bench simulated logs", SimulatedBenchConfig, arguments)
            if simulated_logs is not None:
                print(bench_simulated(simulated_logs, out, terminal_progress()))
        case "quality":
            return _bench_quality(arguments)
        case "speed":
            from benchmarks.speed.bench import SpeedConfig, bench_speed

            speed = settings_from("bench speed", SpeedConfig, arguments)
            if speed is not None:
                print(bench_speed(speed, out, terminal_progress()))
        case _:
            from benchmarks.kar_reproduction import ReproductionConfig, run_reproduction

            published = settings_from("bench reproduction", ReproductionConfig, arguments)
            if published is not None:
                print(run_reproduction(published, out, terminal_progress()))
    return 0


def _bench_quality(arguments: Arguments) -> int:
    from recloop.progress import terminal_progress
    from studies.evidence.bench import QUICK_FOLDER, QualityConfig, bench_quality, quick

    config = settings_from("bench quality", QualityConfig, arguments)
    if config is None:
        return 0
    is_quick = "quick" in arguments.flags
    out = Path(arguments.flags.get("out") or (QUICK_FOLDER if is_quick else "docs"))
    print(bench_quality(quick(config) if is_quick else config, out, terminal_progress()))
    return 0
