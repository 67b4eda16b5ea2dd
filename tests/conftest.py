"""What every test file may use, and the environment they run in."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch and the Hugging Face libraries are imported by any test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As the command line sets it; set later, by a test that calls it, it would part children from their parent.
os.environ.setdefault("MKL_CBWR", "AUTO")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's 15 its workers come to nothing beside other jobs
os.environ["JAXTYPING_DISABLE"] = "1"

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _no_preflight() -> Iterator[None]:
    """Models of random weights write nothing of use, and a run would stop; `tests/test_methods_preflight.py` looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recloop.methods.preflight.NUM_PROMPTS", 0)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data is not at ../shared/data; docs/data.md says where each set comes from")
    return SHARED_DATA
