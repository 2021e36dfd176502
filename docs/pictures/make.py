"""Make the pictures of the README from real runs: `make pictures`. Needs Chromium and tmux."""

import contextlib
import html
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
README_COMMAND = "dask-classify --rows 10k"
LONGER_COMMAND = "clear; dask-classify --rows 50k --output runs/today"  # long enough for a curve
SCREEN = ("100", "30")  # columns, lines
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
TERMINAL = """<body style="margin: 0; background: #14191c"><pre style="margin: 0; padding: 14px 18px; color: #e4eaed;
font: 14px/1.35 'DejaVu Sans Mono', monospace; display: inline-block">{text}</pre></body>"""


def main() -> None:
    """Take pictures of the README's first command, and of the dashboard page and the report of a longer run."""
    with temporary_folder("demo") as folder, Terminal(folder) as terminal, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        terminal.type(README_COMMAND)
        terminal.wait_for(r"[4-9]\d% .* blocks", 120)
        during = terminal.screen()
        terminal.wait_for("dask-classify verify", 300)
        save_picture(browser, during, terminal.screen())
        terminal.type(LONGER_COMMAND)
        terminal.wait_for(r"[4-9]\d% .* blocks", 300)
        page = browser.new_page(viewport={"width": 1100, "height": 680})
        page.goto(terminal.wait_for(r"dashboard: (\S+)", 10)[1])
        page.wait_for_timeout(2500)
        page.screenshot(path=HERE / "classify.png")
        report = Path(folder, "runs/today/report.html")
        terminal.wait_for("in runs/today. ", 600)
        page = browser.new_page(viewport={"width": 1000, "height": 1180})
        page.goto(report.as_uri())
        page.screenshot(path=HERE / "report.png")
        browser.close()


@contextlib.contextmanager
def temporary_folder(name: str):
    """Make a temporary folder whose name looks well in a picture."""
    folder = Path(tempfile.gettempdir(), name)
    folder.mkdir()
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder)


class Terminal:
    """A shell in a terminal, run by tmux."""

    def __init__(self, folder: str):
        self.socket = f"{folder}/tmux"
        size = ["-x", SCREEN[0], "-y", SCREEN[1]]
        self.tmux("new-session", "-d", *size, "-c", folder, "env", "PS1=$ ", f"PATH={BIN}:/usr/bin:/bin", "sh")

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self.tmux("kill-server")

    def tmux(self, *words: str) -> str:
        """Run a tmux command and return its output."""
        return subprocess.run(["tmux", "-S", self.socket, *words], check=True, capture_output=True, text=True).stdout

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def screen(self) -> str:
        """Return the visible text with its colors, as escape sequences."""
        return self.tmux("capture-pane", "-e", "-p")

    def wait_for(self, pattern: str, seconds: float) -> re.Match:
        """Wait until a regular expression matches on the screen, and return the match."""
        until = time.monotonic() + seconds
        while not (match := re.search(pattern, self.tmux("capture-pane", "-p"))):
            if time.monotonic() > until:
                raise SystemExit(f"The terminal did not show {pattern!r} within {seconds} s:\n{self.screen()}")
            time.sleep(0.2)
        return match


def save_picture(browser, *screens: str) -> None:
    """Save a picture of screens, one below the other."""
    texts = []
    for screen in screens:
        console = Console(record=True, width=int(SCREEN[0]), file=io.StringIO())
        console.print(Text.from_ansi(screen.rstrip()), soft_wrap=True)
        text = console.export_html(inline_styles=True, code_format="{code}", theme=MONOKAI)
        texts.append(re.sub("background-color: #[0-9a-f]+", "", text))  # the picture has its own background
    line = f'<span style="color: #5b6a72">{html.escape("─" * int(SCREEN[0]))}</span>'
    page = browser.new_page(viewport={"width": 900, "height": 600}, device_scale_factor=1.5)
    page.set_content(TERMINAL.format(text=f"\n{line}\n\n".join(texts)))
    page.locator("pre").screenshot(path=HERE / "terminal.png")


if __name__ == "__main__":
    main()
