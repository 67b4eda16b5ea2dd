"""The environments that docs/models.md names can be installed: their requirements have a common solution."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WANTED = {
    "with-vllm": ("vllm==0.33.0", "trl==1.16.0", "transformers==5.20."),
    "llamafactory": ("llamafactory==0.9.5", "transformers==5.6."),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", WANTED)
def test_requirements_have_a_solution(name: str, tmp_path: Path) -> None:
    pytest.importorskip("uv")
    out = tmp_path / "solved.txt"
    words = ["-m", "uv", "pip", "compile", "--quiet", "--python-version", "3.11", "--python-platform"]
    words += ["x86_64-manylinux_2_28", f"requirements/{name}.txt", "-o", str(out)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    lines = out.read_text().splitlines()
    for wanted in WANTED[name]:
        assert any(line.startswith(wanted) for line in lines), wanted
