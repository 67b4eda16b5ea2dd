"""Check a report's page with axe-core in headless Chromium: at two widths, light and dark, all folds open.

    npm pack axe-core && tar xzf axe-core-*.tgz
    python -m scripts.check_page package/axe.min.js runs/mine/report.html

It prints what axe finds and exits with 1 where anything is serious or critical.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

WIDTHS_PX = (1280, 500)
SCHEMES = {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--timeout=20000", "--dump-dom"),
)


def with_axe(page: str, axe: str) -> str:
    """The page with its folds open and axe in it, which writes at the end what it finds; its policy forbids scripts."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace("<details>", "<details open>")
    write = "r => document.getElementById('found').textContent = JSON.stringify(r.violations)"
    run = f"axe.run({{exclude: [['#found']]}}).then({write})"
    axe = axe.replace("</script", r"<\/script")
    return page.replace("</body>", f'<pre id="found"></pre><script>{axe}</script><script>{run}</script></body>')


def violations(page: Path, axe: Path, width_px: int, flags: tuple[str, ...]) -> list[dict[str, Any]]:
    """What axe finds on the page at one width."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(with_axe(page.read_text("utf-8"), axe.read_text("utf-8")), "utf-8")
        # Chromium's window is never narrower than 500 px.
        command = ["chromium", *FLAGS, *flags, f"--user-data-dir={folder}/profile", f"--window-size={width_px},1200"]
        done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, check=True)
    return json.loads(html.unescape(done.stdout.rpartition('<pre id="found">')[2].partition("</pre>")[0]))


def main(axe: str, *pages: str) -> int:
    """Every page at every width in both schemes."""
    is_bad = False
    for page, width_px, (scheme, flags) in product(pages, WIDTHS_PX, SCHEMES.items()):
        found = violations(Path(page), Path(axe), width_px, flags)
        is_bad |= any(one["impact"] in ("serious", "critical") for one in found)
        print(f"{page}, {width_px} px, {scheme}: {len(found)} kinds of violation")
        for one in found:
            print(f"  {one['impact']}: {one['help']}, e.g. {one['nodes'][0]['html'][:120]}")
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
