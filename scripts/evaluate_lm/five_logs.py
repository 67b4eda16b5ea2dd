"""`python -m scripts.evaluate_lm.five_logs`: A language model on five logs that no lesson was made from.

    python -m scripts.evaluate_lm.five_logs --lm smollm2 --folder DATA --out results

Two have ratings and attributes (MovieLens-1M, and one with columns of odd names that is made here), one has attributes
alone (Amazon Industrial and Scientific), two have titles alone (news that users of MIND clicked, grocery baskets). Each
result is a file; what is there is not measured again.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.data.load import DataConfig
from recloop.llm.config import LmConfig
from recloop.progress import SILENT, Progress
from recloop.prompts.user_profile import PromptConfig
from scripts.evaluate_lm.cli import EvaluateLmConfig, evaluate_lm
from scripts.settings_command import settings_command

LogName = Literal["movielens-1m", "amazon-scientific", "mind-titles", "groceries", "breads"]
LOGS: tuple[LogName, ...] = ("movielens-1m", "amazon-scientific", "mind-titles", "groceries", "breads")
FEWEST_TITLES = 3  # of a reader of news, to be kept
CRUSTS = ("thin", "blistered", "floury", "dark", "soft", "seeded", "cracked", "glazed")
GRAINS = ("spelt", "rye", "einkorn", "durum", "buckwheat", "barley", "oat", "maize", "emmer", "teff")
LEAVENS = ("levain Ida", "poolish", "biga", "levain Otto", "baker's yeast", "no leaven", "rye sour", "levain Uta")
SHAPES = ("Batard", "Boule", "Ring", "Plait", "Roll", "Tin", "Flat", "Stick", "Wedge", "Crown")
PLACES = (
    "Mill Lane",
    "the Harbour",
    "Saint Osyth",
    "Long Meadow",
    "the Old Ferry",
    "Nine Elms",
    "Cold Ash",
    "the Weir",
)


class FiveLogsConfig(BaseModel):
    """Which language model writes about how many users of which logs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(default=Path("data"), description="has ml-1m, amazon-scientific, mind-sample and groceries")
    logs: tuple[LogName, ...] = Field(default=LOGS, description="of those")
    users: int = Field(default=300, ge=1, description="users of each, drawn by the seed")
    seed: int = Field(default=0, ge=0, description="of the drawn users and the completions")
    tries: int = Field(default=1, ge=1, description="draws of a text at most, until it is in form and true")
    template: Literal["counted", "attributed"] = Field(
        default="counted", description="with counts in the prompt or not"
    )
    lm: LmConfig = Field(default=LmConfig(name="smollm2"), description="the language model")


def five_logs(config: FiveLogsConfig, out: Path, progress: Progress = SILENT) -> str:
    """A line per log, after measuring those whose result is not there."""
    out.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for log in config.logs:
        name = (
            f"{log}.{config.template}.{config.lm.name.replace(':', '-').replace('/', '-')}.{config.users}.{config.seed}"
        )
        file = out / (f"{name}.json" if config.tries == 1 else f"{name}.tries{config.tries}.json")
        if not file.exists():
            skill = evaluate_lm(
                EvaluateLmConfig(
                    users=config.users,
                    completions=1,
                    tries=config.tries,
                    seed=config.seed,
                    data=data_of(log, config.folder, out),
                    prompt=PromptConfig(template=config.template),
                    lm=config.lm,
                ),
                progress,
            )
            file.write_text(json.dumps({"log": log, "lm": config.lm.name, **skill.as_dict()}, indent=1) + "\n")
        lines.append(line_of(json.loads(file.read_text())))
    return "\n".join([HEAD, *lines])


HEAD = f"{'log':<18}{'form':>6}{'grounded':>10}{'true':>6}{'likes':>7}{'dislikes':>10}{'claims':>8}{'of four':>9}"


def line_of(found: dict[str, Any]) -> str:
    """Shares in percent; claims per text, and per text whose history supports four."""
    shares = (found[name] for name in ("well_formed", "grounded", "true", "true_likes", "true_dislikes"))
    form, grounded, true, likes, dislikes = (f"{100 * share:.1f}" for share in shares)
    claims, of_four = f"{found['claims_per_completion']:.1f}", f"{found['claims_of_four']:.1f}"
    return f"{found['log']:<18}{form:>6}{grounded:>10}{true:>6}{likes:>7}{dislikes:>10}{claims:>8}{of_four:>9}"


def data_of(log: LogName, folder: Path, out: Path) -> DataConfig:
    """How a log is read; those that are tables are written into `out` first."""
    match log:
        case "movielens-1m":
            return DataConfig.model_validate({"name": "ml-1m", "path": folder / "ml-1m"})
        case "amazon-scientific":
            return DataConfig.model_validate({"name": "implicit", "path": folder / "amazon-scientific"})
        case "groceries":
            table = {"header": False, "user": "1", "item": "2", "baskets": True, "repeats": "all"}
            path = folder / "groceries" / "groceries.csv"
            return DataConfig.model_validate({"name": "table", "path": path, "table": table})
        case "mind-titles":
            return _table(out, log, lambda: clicked_titles(folder / "mind-sample"), {"title": "title"})
        case "breads":
            columns = {"rating": "stars", "title": "title", "attributes": ["crust feel", "grain", "leaven of"]}
            return _table(out, log, breads, columns)


def _table(
    out: Path, log: str, make: Callable[[], tuple[list[dict[str, Any]], list[dict[str, Any]]]], columns: dict[str, Any]
) -> DataConfig:
    interactions, items = make()
    paths = [out / f"{log}-{kind}.csv" for kind in ("log", "items")]
    for path, rows in zip(paths, (interactions, items), strict=True):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    table = {"user": "user", "item": "item", "items": str(paths[1]), **columns}
    return DataConfig.model_validate({"name": "table", "path": paths[0], "table": table})


def clicked_titles(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What readers clicked, of the news whose titles are known; readers of fewer than `FEWEST_TITLES` are left out."""
    titles = {row[0]: row[3] for row in map(_cells, (folder / "news.tsv").read_text(encoding="utf-8").splitlines())}
    read: dict[str, dict[str, None]] = {}
    for _, user, _, history, shown in map(_cells, (folder / "behaviors.tsv").read_text(encoding="utf-8").splitlines()):
        clicked = [item.removesuffix("-1") for item in shown.split() if item.endswith("-1")]
        read.setdefault(user, {}).update(dict.fromkeys(one for one in (*history.split(), *clicked) if one in titles))
    rows = [{"user": user, "item": item} for user, own in read.items() if len(own) >= FEWEST_TITLES for item in own]
    return rows, [{"item": item, "title": title} for item, title in titles.items()]


def _cells(line: str) -> list[str]:
    return line.split("\t")


def breads(num_users: int = 400, num_items: int = 160) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Ratings of invented breads by people with a taste: three attributes with names that no lesson has."""
    rng = np.random.default_rng(7)

    def one(values: Sequence[str]) -> str:
        return values[int(rng.integers(len(values)))]

    items = [
        {
            "item": f"b{number}",
            "title": f"{one(SHAPES)} of {one(PLACES)}, No. {number}",
            "crust feel": one(CRUSTS),
            "grain": "|".join(dict.fromkeys((one(GRAINS), one(GRAINS)))),
            "leaven of": one(LEAVENS),
        }
        for number in range(num_items)
    ]
    rows: list[dict[str, Any]] = []
    for user in range(num_users):
        taste = {value: rng.normal(0, 1) for values in (CRUSTS, GRAINS, LEAVENS) for value in values}
        for number in rng.choice(num_items, int(rng.integers(8, 20)), replace=False).tolist():
            item = items[number]
            values = [item["crust feel"], *item["grain"].split("|"), item["leaven of"]]
            stars = np.clip(round(3.4 + np.mean([taste[value] for value in values]) * 1.6), 1, 5)
            rows.append({"user": f"u{user}", "item": item["item"], "stars": int(stars)})
    return rows, items


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    about = (__doc__ or "").partition(": ")[2].partition("\n")[0]
    return settings_command("python -m scripts.evaluate_lm.five_logs", about, _load, "runs/five-logs", argv)


def _load() -> Any:
    return FiveLogsConfig, five_logs


if __name__ == "__main__":
    sys.exit(main())
