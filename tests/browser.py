"""A page as Chromium shows it, for tests of what a person sees."""

import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def as_browsed(address: str, profile: Path, *options: str) -> str:
    """Return the document as the browser built it. ``profile``: a folder for it alone; ``options``: of Chromium.

    A browser that dies of itself is started again once.
    """
    assert CHROMIUM is not None
    fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom", *options]
    for attempt in ("first", "second"):
        command = [CHROMIUM, *fixed, f"--user-data-dir={profile / attempt}", address]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        if ended.returncode >= 0:
            break
    ended.check_returncode()
    return ended.stdout
