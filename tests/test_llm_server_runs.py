"""Runs whose language model is behind a server: a fake one, `transformers serve`, llama.cpp."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from fake_server import FakeServer
from recloop.cli import main
from recloop.encoders.load import BY_NAME
from recloop.errors import BudgetError, GenerationError, SettingError
from recloop.evaluation.terminal import show
from recloop.experiment.run_folder import RunFolder
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.cache import CompletionCache
from recloop.llm.language_model import Sampling
from recloop.llm.load import lm_from_config
from recloop.llm.server.cost import describe_server_usage, num_unanswered
from recloop.methods.dpo4rec import METHOD
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.cost_estimate import forecast
from recloop.methods.method import run_method
from recloop.progress import SILENT
from recloop.records import Prompt
from recloop.testing import FakeEncoder

SIMULATED = {
    "rounds": 0,
    "data": {"simulated": {"num_users": 60, "num_items": 100, "num_interactions": 12}},
    "split": {"train": 0.4, "reward": 0.2, "valid": 0.1, "test": 0.3},
    "completions": {"reward": 3, "test": 2},
    "reranker": {"max_epochs": 1, "min_epoch_steps": 2},
    "statistics": {"num_flips": 100, "num_resamples": 100},
}


def config_for(at: FakeServer, **lm: object) -> Dpo4RecConfig:
    name = f"openai:{at.base_url}#m"
    return Dpo4RecConfig.model_validate(SIMULATED | {"lm": {"name": name, "max_tokens": 32} | lm})


def do(config: Dpo4RecConfig, path: Path, until: str | None = None) -> str:
    with RunFolder.open(path, config.model_dump(mode="json")) as folder:
        return run_method(METHOD, config, folder, SILENT, until, encoder=FakeEncoder()) or show(path)


def manifest_of(path: Path) -> dict:
    return json.loads((path / "manifest.json").read_text())


@pytest.mark.slow
def test_a_run_asks_once_and_says_what_it_cost(tmp_path: Path) -> None:
    with FakeServer() as server:
        config = config_for(server, prices={"input": 10, "cached_input": 10, "output": 100, "currency": "EUR"})
        said = do(config, tmp_path / "run")
        num_asked = len(server.seen)
        assert do(config, tmp_path / "run") == said
    assert len(server.seen) == num_asked
    entry = manifest_of(tmp_path / "run")["steps"]["sample.untuned.s0"]
    assert entry["server"]["requests"] == num_asked
    assert entry["server"]["input_tokens"] == 100 * num_asked
    assert entry["server"]["cost"] == pytest.approx(num_asked * 1000 / 1e6 + entry["server"]["output_tokens"] / 1e4)
    assert f"{num_asked:,} requests (0 retries)" in said
    assert "EUR" in said
    assert "EUR" in (tmp_path / "run" / "report.html").read_text()
    assert "api_key" not in (tmp_path / "run" / "manifest.json").read_text()


@pytest.mark.slow
def test_fewer_sentences_are_not_asked_for_again(tmp_path: Path) -> None:
    with FakeServer() as server:
        config = config_for(server)
        do(config, tmp_path / "whole", until="sample")
        num_asked = len(server.seen)
        completions = config.completions.model_copy(update={"sentences": 1})
        short = config.model_copy(update={"completions": completions})
        do(short, tmp_path / "short", until="prepare")
        shutil.copy(tmp_path / "whole" / "completions.sqlite", tmp_path / "short")
        do(short, tmp_path / "short", until="sample")
    assert len(server.seen) == num_asked > 0


@pytest.mark.slow
def test_a_cap_stops_a_run_and_a_higher_one_lets_it_go_on(tmp_path: Path, monkeypatch, capsys) -> None:
    path = tmp_path / "run"
    with FakeServer() as server:
        with pytest.raises(BudgetError, match="max_requests is 10"):
            do(config_for(server, budget={"max_requests": 10}), path, until="sample")
        assert len(server.seen) == 10
        with CompletionCache(path / "completions.sqlite") as cache:
            assert cache.usage().requests == 10
        assert main(["resume", str(path), "--rounds", "1"]) == 2
        monkeypatch.setitem(BY_NAME, "minilm", FakeEncoder)
        assert main(["resume", str(path), "--lm.budget.max-requests", "1000"]) == 0
        step = manifest_of(path)["steps"]["sample.untuned.s0"]
        assert step["server"]["requests"] == len(server.seen)
        assert max(server.delivered().values()) <= 2
    assert "model behind a server:" in capsys.readouterr().out


@pytest.mark.slow
def test_a_user_without_an_answer_stays_with_an_empty_text_and_is_counted(tmp_path: Path, monkeypatch) -> None:
    poisoned: list[str] = []

    def fault(seen):
        if len(poisoned) < 2 and seen.prompt not in poisoned and seen.number >= 3:
            poisoned.append(seen.prompt)
        return "400" if seen.prompt in poisoned else ""

    with FakeServer(fault) as server:
        path, config = tmp_path / "run", config_for(server)
        monkeypatch.setitem(BY_NAME, "minilm", FakeEncoder)
        with RunFolder.open(path, config.model_dump(mode="json")) as folder:
            run_method(METHOD, config, folder, SILENT)
        assert main(["resume", str(path)]) == 3
    steps = manifest_of(path)["steps"]
    tables = [pl.read_parquet(f) for f in (path / "steps" / "sample.untuned.s0").glob("*.parquet")]
    rejected = pl.concat(tables).filter(pl.col("status") == "rejected")
    assert rejected.height == num_unanswered(steps) >= 2
    assert set(rejected["text"]) == {""}
    assert rejected["user"].n_unique() == 2
    assert f"{rejected.height} rejected; their users stay" in "\n".join(describe_server_usage(steps))


def test_what_a_run_with_a_server_cannot_do_is_said_at_once(tmp_path: Path) -> None:
    for lm, rounds, said in (
        ({"name": "openai:http://x"}, 0, "must be openai:<base_url>#<model>, got 'openai:http://x'"),
        ({"name": "openai:http://x#m"}, 1, "trained from its weights, got none and rounds=1"),
        (
            {"name": "openai:http://x#m", "server": {"weights": "m"}},
            1,
            "transformers:NAME_OR_FOLDER, got m",
        ),
    ):
        with pytest.raises(ValidationError, match=said):
            Dpo4RecConfig.model_validate(SIMULATED | {"lm": lm, "rounds": rounds})
    abroad = Dpo4RecConfig.model_validate(SIMULATED | {"lm": {"name": "openai:https://api.example.org/v1#m"}})
    with pytest.raises(SettingError, match=r"allowed_hosts"):
        do(abroad, tmp_path / "b")


@pytest.mark.parametrize(
    ("listed", "trained_name", "is_believed"),
    [
        (("m", "trained"), "{name}", True),
        (("m", "trained:latest"), "{name}", True),
        (("m",), "{name}", False),
        (("m",), "{folder}", True),  # a server that loads what a request names
        (None, "{name}", True),  # a server that does not tell
    ],
)
def test_a_server_without_the_trained_model_is_not_asked_for_its_completions(
    listed: tuple[str, ...] | None, trained_name: str, is_believed: bool, tmp_path: Path
) -> None:
    """Some answer with the model they have, whatever the name: its completions would pass for the trained one's."""
    trained = tmp_path / "trained"
    shutil.copytree(bundled_lm_folder(), trained)
    with FakeServer(models=listed) as server:
        settings = {"weights": f"transformers:{bundled_lm_folder()}", "trained_name": trained_name}
        lm = lm_from_config(config_for(server, server=settings).lm, trained)
        completions = lm.generate([Prompt(0, "", "who?", 0, 0)], Sampling(1, 1.0, 1.0, 8, 0))
        if is_believed:
            assert len(list(completions)) == len(server.seen) == 1
        else:
            with pytest.raises(GenerationError, match=r"as trained, got a server that lists m; serve it"):
                list(completions)
            assert not server.seen


def test_the_plan_tells_the_money_beforehand() -> None:
    settings = {"name": "openai:http://127.0.0.1:1/v1#m", "max_tokens": 50}
    settings |= {"prices": {"input": 1.0, "output": 4.0}, "budget": {"max_cost": 2.5}}
    config = Dpo4RecConfig.model_validate(SIMULATED | {"lm": settings})
    line, caps = forecast(config).splitlines()[-3:-1]
    words = line.replace(",", "").split()
    requests, completions = int(words[1]), int(words[8])
    most = (requests * config.prompt.max_prompt_tokens + 4 * completions * 50) / 1e6
    assert f"at most {most:,.2f} USD" in line
    assert completions > requests  # three completions in one request for test users
    assert "max_cost 2.5" in caps


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def started(command: list[str], port: int, ready: str, log_file: Path):
    """A server of its own process on loopback, from when it answers GET `ready`."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log_file.open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=1).close()
                    break
                except OSError:
                    assert server.poll() is None, log_file.read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def transformers_serve(tmp_path: Path):
    """`transformers serve`; it loads whichever model folder a request names."""
    if find_spec("fastapi") is None or find_spec("uvicorn") is None or find_spec("openai") is None:
        pytest.skip("transformers serve needs transformers[serving]")
    port = free_port()
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", "--port", str(port), "--device", "cpu", "--log-level", "error"]
    with started(command, port, "/health", tmp_path / "serve.log") as address:
        yield address


@contextmanager
def llama_cpp(name: str, model: Path, port: int, folder: Path):
    """llama.cpp's server with one model under this name; whatever name is asked for, it answers with that."""
    commands = [os.environ.get(variable) for variable in ("RECLOOP_LLAMA_CPP", "RECLOOP_GGUF")]
    if not all(commands):
        pytest.skip(
            "llama.cpp is built from source: say how its server is started in RECLOOP_LLAMA_CPP "
            "('llama-server -m {gguf} --alias {name}') and how a model is converted in RECLOOP_GGUF "
            "('python convert_hf_to_gguf.py {folder} --outfile {gguf}')"
        )
    gguf = folder / f"{name}.gguf"
    serve, convert = (
        [part.format(gguf=gguf, name=name, folder=model) for part in shlex.split(command or "")] for command in commands
    )
    subprocess.run(convert, check=True, capture_output=True)
    with started([*serve, "--port", str(port)], port, "/v1/models", folder / f"{name}.log") as address:
        yield address


@pytest.mark.soak
def test_the_whole_loop_runs_against_a_real_server(transformers_serve: str, tmp_path: Path) -> None:
    """Sampling by the server, training here, and sampling again by the server from the trained weights."""
    folder = bundled_lm_folder()
    common = SIMULATED | {
        "rounds": 1,
        "variants": "core",
        "data": {"simulated": {"num_users": 60, "num_items": 150, "num_interactions": 24}},
        "split": {"train": 0.4, "reward": 0.3, "valid": 0.1, "test": 0.2},
        "reranker": {"max_epochs": 2, "min_epoch_steps": 4},
        "dpo": {"max_pairs": 8},
    }
    # Whatever the temperature, this server is greedy unless the model or these settings say otherwise.
    more = {"generation_config": json.dumps({"do_sample": True})}
    settings = {"weights": f"transformers:{folder}", "trained_name": "{folder}", "extra_body": more}
    lm = {"max_tokens": 64, "name": f"openai:{transformers_serve}#{folder}", "server": settings}
    server = Dpo4RecConfig.model_validate(common | {"lm": lm | {"pace": {"max_concurrency": 2}}})
    local = Dpo4RecConfig.model_validate(common | {"lm": {"max_tokens": 64, "name": f"transformers:{folder}"}})
    do(server, tmp_path / "server")
    do(local, tmp_path / "local")
    tables = [json.loads((tmp_path / run / "results.json").read_text())["tables"] for run in ("server", "local")]
    rows = [[row["name"] for row in table[0]["metrics"][0]["variants"]] for table in tables]
    assert rows[0] == rows[1]
    shapes = []
    for run in ("server", "local"):
        files = sorted((tmp_path / run / "steps").glob("sample.*/*.parquet"))
        shapes.append({f"{file.parent.name}/{file.name}": pl.read_parquet(file).height for file in files})
        assert num_unanswered(manifest_of(tmp_path / run)["steps"]) == 0
    assert len(shapes[0]) >= 7  # untuned, trained and random labels; feedback, fit and test users
    assert shapes[0] == shapes[1]
    steps = manifest_of(tmp_path / "server")["steps"]
    assert steps["sample.trained.s0"]["server"]["requests"] > 0


def missing_model(config: Dpo4RecConfig, run: Path) -> str:
    """The trained model a run stopped for, since the server has it not; empty when the run is done."""
    try:
        do(config, run)
    except GenerationError as error:
        found = re.search(r"must serve the trained model as (\S+),", str(error))
        if found is None:
            raise
        return found[1]
    return ""


@pytest.mark.soak
def test_the_whole_loop_runs_through_llama_cpp(tmp_path: Path) -> None:
    """A server of one model, exchanged for the trained one whenever the run asks for that.

    The rows of a run in this process, and its completions; what the texts say is the model's affair.
    """
    common = SIMULATED | {"rounds": 1, "variants": "core", "dpo": {"max_pairs": 8}}
    held, port = {"base": bundled_lm_folder()}, free_port()
    settings = {"weights": f"transformers:{held['base']}", "completions_per_request": 1}
    names = {"server": f"openai:http://127.0.0.1:{port}/v1#base", "local": f"transformers:{held['base']}"}
    configs = {
        run: Dpo4RecConfig.model_validate(
            common | {"lm": {"name": name, "max_tokens": 64} | ({"server": settings} if run == "server" else {})}
        )
        for run, name in names.items()
    }
    do(configs["local"], tmp_path / "local")
    is_done = False
    while not is_done:
        name = list(held)[-1]
        with llama_cpp(name, held[name], port, tmp_path):
            missing = missing_model(configs["server"], tmp_path / "server")
        is_done = not missing
        if missing:
            assert missing not in held
            held[missing] = tmp_path / "server" / "lm" / missing
    assert list(held) == ["base", "trained.s0", "random_label_dpo.s0"]
    tables, heights = {}, {}
    for run in names:
        table = json.loads((tmp_path / run / "results.json").read_text())["tables"][0]["metrics"][0]
        tables[run] = [row["name"] for row in table["variants"]]
        files = sorted((tmp_path / run / "steps").glob("sample.*/*.parquet"))
        heights[run] = {f"{file.parent.name}/{file.name}": pl.read_parquet(file).height for file in files}
    assert tables["server"] == tables["local"]
    assert heights["server"] == heights["local"] != {}
    steps = manifest_of(tmp_path / "server")["steps"].values()
    requests = sum(step["server"]["requests"] for step in steps if "server" in step)
    assert requests == sum(heights["server"].values())


@pytest.mark.soak
def test_a_real_server_names_a_model_it_has_not(transformers_serve: str, tmp_path: Path) -> None:
    name = f"openai:{transformers_serve}#nobody/nothing"
    config = Dpo4RecConfig.model_validate(SIMULATED | {"lm": {"name": name, "pace": {"max_outage_s": 5}}})
    with pytest.raises(GenerationError, match=r"takes no request|refuses every prompt|has not answered"):
        do(config, tmp_path / "run", until="sample")
