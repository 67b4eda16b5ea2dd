"""Next week: a finished run goes on with new interactions, as a run of its own.

The new run has all interactions, old users in their old groups and the trained language model as its first. Completions
and vectors are kept by content, so only users whose prompt changed are written about again; rerankers are fitted again.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recloop.data.load import read_log
from recloop.data.splits import SplitConfig, user_groups
from recloop.errors import DataError, RunError, SettingError
from recloop.evaluation.score import MetricsConfig, completion_values, variant_from_completions
from recloop.evaluation.significance import Comparison, compare
from recloop.experiment.run_folder import RunFolder
from recloop.files import atomic_write_json
from recloop.methods.dpo4rec import METHOD
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.method import run_method
from recloop.methods.predict import FinishedRun, load, require_columns, value_lists
from recloop.methods.run import require_objects, take_caches
from recloop.methods.use_files import rows_of_test_lists
from recloop.progress import terminal_progress
from recloop.records import Group, Log
from recloop.settings import validate

if TYPE_CHECKING:
    from recloop.evaluation.per_user_scores import VariantScores
    from recloop.progress import Progress

LOG, ITEMS, USERS, GROUPS = "log.parquet", "items.parquet", "users.parquet", "groups.parquet"
COMPARED = "update.json"
OLD, NEW = "before", "after"


@dataclass(frozen=True, slots=True)
class Update:
    """The new run, and the old one beside it on the same lists.

    comparison: ``metric``, ``num_users``, the means ``before`` and ``after``, their ``difference`` with its 95%
        interval, ``p``, and ``same_text``: about how many of the users nothing was written again.
    found: about the new interactions, a sentence each.
    """

    model: FinishedRun
    comparison: Mapping[str, Any]
    found: tuple[str, ...]

    def __str__(self) -> str:
        told = self.comparison
        value, low, high = (told["difference"][name] for name in ("value", "low", "high"))
        lines = (
            *self.found,
            f"{told['num_users']:,} test users are in both runs; {told['same_text']:,} of them keep their text",
            f"{told['metric']} on their new lists: {told[OLD]:.4f} before, {told[NEW]:.4f} after",
            f"after minus before: {value:+.4f} [{low:+.4f}, {high:+.4f}], p {told['p']:.3g}",
            f"the new run: {self.model.run.path}",
        )
        return "\n".join(lines)


def update(
    run: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    items: str | Path | None = None,
    rounds: int = 0,
    progress: Progress | None = None,
    **objects: Any,
) -> Update:
    """A finished run with new interactions, as a run of its own, compared with the old one on the same lists.

    Args:
        run: a finished run of DPO4Rec on a table (``data.name = table``); it is only read.
        data: the new interactions, in a table like the old one.
        out: folder of the new run; the tables it is made from are written into ``OUT.data``.
        items: what is known of new items, in a table (Parquet, CSV) like the old one.
        rounds: of training, beginning with the old run's model; 0 keeps it as it is.
        progress: told how far it is; None for the terminal.
        objects: those that the old run was made with.

    Raises:
        RunError: no finished run there, or `out` holds another run or one of other data.
        SettingError: the run's log is no whole table, or its lists are those shown.
        DataError: bad rows, items of which nothing is known, or nothing new.
    """
    run, out, progress = Path(run), Path(out), progress or terminal_progress()
    old = load(run, **objects)
    _require_whole_table(old)
    tables = out.with_name(f"{out.name}.data")
    merged, found = merged_tables(old, Path(data), None if items is None else Path(items))
    _write_tables(merged, tables)
    config = validate(Dpo4RecConfig, config_of(old, tables.resolve(), rounds))
    with RunFolder.open(out, config.model_dump(mode="json"), form=Dpo4RecConfig) as opened:
        take_caches(opened, run)
        require_objects(opened, objects)
        run_method(METHOD, config, opened, progress, None, **objects)
    new = load(out, **objects)
    comparison = compared(old, new)
    atomic_write_json(out / COMPARED, comparison)
    return Update(new, comparison, tuple(found))


def _write_tables(merged: Mapping[str, pl.DataFrame], folder: Path) -> None:
    """The tables of a new run; RunError where one was made from others, which are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in merged.items():
        if (folder / name).is_file() and not pl.read_parquet(folder / name).equals(frame):
            raise RunError(f"{folder / name} was made from other data; choose another --out, or remove {folder}")
    for name, frame in merged.items():
        part = folder / f".{name}.part"
        frame.write_parquet(part)
        part.replace(folder / name)


def _require_whole_table(old: FinishedRun) -> None:
    config = old.run.config
    data, kind = config["data"], config["protocol"]["kind"]
    for is_fit, got in (
        (data["name"] == "table" and "log" not in old.objects, f"data.name {data['name']}"),
        (data["users"] is None, f"data.users {data['users']}"),
        (kind != "impressions", f"protocol.kind {kind}"),
    ):
        if not is_fit:
            raise SettingError(f"an update needs a run on a whole table, with lists that recloop made, got {got}")


def merged_tables(old: FinishedRun, data: Path, items: Path | None) -> tuple[dict[str, pl.DataFrame], list[str]]:
    """The tables of the new log by their names, and what was found in the new interactions."""
    settings, log = validate(Dpo4RecConfig, old.run.config).data, old.log_as_read
    alone = {"items": None, "users": None, "attributes": (), "items_header": None, "users_header": None}
    table = settings.table.model_copy(update={**alone, "title": "title", "year_from_title": False})
    new = read_log(settings.model_copy(update={"path": data, "table": table, "on_bad_rows": "error"}), 0)
    columns = ("user_id", "item_id", "rating", "time")
    before, after = (_with_ids(one).select(columns) for one in (log, new))
    if not settings.has_times:  # rows are in time order, and the new ones come later
        after = after.with_columns(pl.col("time") + float(before["time"].max() or 0) + 1)  # pyright: ignore[reportArgumentType]
    num_known = after.join(before, on=["user_id", "item_id", "time"], how="semi").height
    after = after.join(before, on=["user_id", "item_id", "time"], how="anti")
    if after.is_empty():
        raise DataError(f"{data} holds nothing new: the run has all of its {num_known:,} rows; give later interactions")
    catalogue = log.items.drop("item").with_columns(pl.col("item_id").cast(pl.String))
    unknown = after.select(pl.col("item_id").unique(maintain_order=True)).join(catalogue, on="item_id", how="anti")
    if unknown.height:
        more = _items_of(items, settings.table, log) if items is not None else unknown.head(0)
        missing = unknown.join(more, on="item_id", how="anti")
        if missing.height and log.attributes:
            raise DataError(
                f"{missing.height:,} new items are in no table of items, such as {missing['item_id'][0]!r}; "
                f"give one that has them: --items FILE"
            )
        named = unknown.with_columns(title="item_id") if items is None else more.join(unknown, on="item_id", how="semi")
        catalogue = pl.concat([catalogue, named.select(catalogue.columns)])
    users = pl.concat([before, after]).select(pl.col("user_id").unique(maintain_order=True))
    told = [
        f"{after.height:,} new interactions of {after['user_id'].n_unique():,} users",
        f"{users.height - log.num_users:,} users and {unknown.height:,} items are new",
    ]
    tables = {LOG: pl.concat([before, after]), ITEMS: catalogue, GROUPS: _groups(old, users["user_id"].to_list())}
    if log.users.width > 2:
        known = log.users.drop("user")
        tables[USERS] = users.join(known, on="user_id", how="left", maintain_order="left")
    return tables, told + ([f"{num_known:,} rows were known"] if num_known else [])


def config_of(old: FinishedRun, tables: Path, rounds: int) -> dict[str, Any]:
    """The old run's settings with the new tables, and its trained model in place of its first."""
    config = validate(Dpo4RecConfig, old.run.config).model_dump(mode="json")
    table: dict[str, Any] = config["data"]["table"]
    of_old = {"domain", "rating_min", "rating_max", "positive_from_rating", "repeats"}
    kept = {name: value for name, value in table.items() if name in of_old}
    kept |= {"user": "user_id", "item": "item_id", "time": "time", "items": str(tables / ITEMS)}
    kept["time_format"] = "s" if table["time"] else "order"
    if table["rating"]:
        kept["rating"] = "rating"
    if (tables / USERS).is_file():
        kept["users"] = str(tables / USERS)
    kept |= {"attributes": list(old.log_as_read.attributes), "year_from_title": False}
    config["data"] = {"name": "table", "path": str(tables / LOG), "table": kept}
    config["data"]["min_item_ratings"] = old.run.config["data"]["min_item_ratings"]
    split = {**config["split"], "groups": tables / GROUPS, "fold": 0}  # the shares place users who come later
    config["split"] = validate(SplitConfig, split).model_dump(mode="json")
    if old.run.config["rounds"] and "lm" not in old.objects:
        seed = config["seeds"][0]
        config["lm"]["name"] = f"transformers:{(old.run.path / 'lm' / f'trained.s{seed}').resolve()}"
    return config | {"rounds": rounds}


def compared(old: FinishedRun, new: FinishedRun) -> dict[str, Any]:
    """Both runs on the new test lists of the users that both know: each with its text and its reranker."""
    config, both = validate(Dpo4RecConfig, new.run.config), set(old.user_ids)
    rows = rows_of_test_lists(new).filter(pl.col("user_id").is_in(list(both)))
    if rows.is_empty():
        raise DataError("the runs have no test user in common; an update keeps the users of the old run")
    later = new.log.items.join(old.log.items, on="item_id", how="anti").drop("item")
    before = (old.with_items(later) if later.height else old).score(rows)
    lists = new.lists.test.take(rows["list_id"].unique(maintain_order=True).to_numpy())
    metrics = MetricsConfig(names=(config.primary_metric,), empty=config.metrics.empty, mean=config.metrics.mean)
    variants: list[VariantScores] = []
    for name, scored in ((OLD, before), (NEW, new.score(rows))):
        scores_BL = np.full(lists.items_BL.shape, -np.inf, np.float32)
        scores_BL[lists.is_item_BL] = scored["score"].to_numpy()
        by_metric = completion_values(scores_BL[:, None], lists, metrics.names)
        variants.append(variant_from_completions(name, {0: by_metric}, lists.user_B, metrics))
    found = compare(variants, [(NEW, OLD)], config.primary_metric, config.statistics, config.data_seed)
    users = rows["user_id"].unique()
    return _as_json(found) | {"same_text": sum(old.texts(user)[:1] == new.texts(user)[:1] for user in users)}


def _as_json(found: Comparison) -> dict[str, Any]:
    (contrast,), values = found.contrasts, {name: one.value for name, one in found.estimates.items()}
    gain = contrast.difference
    spread = {"value": gain.value, "low": gain.low, "high": gain.high}
    return {"metric": found.metric, "num_users": found.num_users, **values, "difference": spread, "p": contrast.p}


def _with_ids(log: Log) -> pl.DataFrame:
    users, items = log.users.select("user", "user_id"), log.items.select("item", "item_id")
    return log.interactions.join(users, on="user", maintain_order="left").join(items, on="item", maintain_order="left")


def _items_of(path: Path, table: Any, log: Log) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}); give Parquet or CSV") from error
    item, title = table.items_id or table.item, table.title
    require_columns(frame.columns, (item, title), str(path))
    named = (
        pl.col(item).cast(pl.String).alias("item_id"),
        pl.col(title).cast(pl.String).fill_null(pl.col(item)).alias("title"),
    )
    return frame.select(*named, *(value_lists(frame, one, table.attribute_separator) for one in log.attributes))


def _groups(old: FinishedRun, user_ids: list[str]) -> pl.DataFrame:
    """Old users keep their group; a new one's follows from the id, so that it does not depend on who else comes."""
    config = validate(Dpo4RecConfig, old.run.config)
    ids = old.log_as_read.users["user_id"].to_list()
    drawn = user_groups(old.log_as_read, config.split, config.data_seed)
    group_of = {ids[user]: group.value for group, users in drawn.items() for user in users.tolist()}
    ends = np.cumsum([getattr(config.split, group.value) for group in Group])
    for user in user_ids:
        if user not in group_of:
            share = zlib.crc32(f"{config.data_seed} {user}".encode()) / 2**32
            group_of[user] = list(Group)[int(np.searchsorted(ends, share, side="right").clip(max=len(ends) - 1))].value
    return pl.DataFrame({"user_id": user_ids, "group": [group_of[user] for user in user_ids]})
