"""Makes the pictures of the README from real runs: `make pictures`. Needs Chromium and tmux."""

import contextlib
import html
import io
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
COMMAND = Path(sys.executable).with_name("dask-classify")
SCREEN = ("100", "22")  # columns, lines
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
TERMINAL = """<body style="margin: 0; background: #14191c"><pre style="margin: 0; padding: 14px 18px; color: #e4eaed;
font: 14px/1.35 'DejaVu Sans Mono', monospace; display: inline-block">{text}</pre></body>"""


def main() -> None:
    """Run the command in a terminal, look at its page while it works, then at its report."""
    with a_folder("orders") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        write_orders(Path(folder, "orders.csv"))
        terminal = Terminal(folder)
        terminal.type("dask-classify --input orders.csv --output runs/today --max-bad 0.1%")
        terminal.wait_for("blocks in|of 3", 60)
        time.sleep(7)
        page = browser.new_page(viewport={"width": 1100, "height": 680})
        page.goto("http://127.0.0.1:8787/classify")
        page.wait_for_timeout(2500)
        page.screenshot(path=HERE / "classify.png")
        during = terminal.screen()
        terminal.wait_for("It begins", 300)
        picture_of(browser, during, terminal.screen())
        terminal.close()
        page = browser.new_page(viewport={"width": 1000, "height": 1180})
        page.goto(f"file://{folder}/runs/today/report.html")
        page.screenshot(path=HERE / "report.png")
        browser.close()


@contextlib.contextmanager
def a_folder(name: str):
    """A temporary folder whose name can stand in a picture."""
    folder = Path(tempfile.gettempdir(), name)
    folder.mkdir()
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder)


def write_orders(file: Path) -> None:
    """A file of 30,000 rows, of which three have a field too many."""
    rows = [f"{n},{n % 97},{n * 37 % 1000 / 10},note {n % 11}" for n in range(30_000)]
    for broken in (5_000, 11_111, 23_456):
        rows[broken] += ",oops"
    file.write_text("\n".join(["order,items,price,note", *rows]) + "\n")


class Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, folder: str):
        self.socket = f"{folder}/tmux"
        size = ["-x", SCREEN[0], "-y", SCREEN[1]]
        self.tmux(
            "new-session", "-d", *size, "-c", folder, "env", "PS1=$ ", f"PATH={COMMAND.parent}:/usr/bin:/bin", "sh"
        )

    def tmux(self, *words: str) -> str:
        """One command of tmux's."""
        return subprocess.run(["tmux", "-S", self.socket, *words], check=True, capture_output=True, text=True).stdout

    def type(self, line: str) -> None:
        """A line, and the return key."""
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def screen(self) -> str:
        """What it shows, with colours."""
        return self.tmux("capture-pane", "-e", "-p")

    def wait_for(self, words: str, seconds: float) -> None:
        """Until one of the words is on the screen."""
        until = time.monotonic() + seconds
        while not any(word in self.screen() for word in words.split("|")):
            if time.monotonic() > until:
                raise SystemExit(f"The terminal never shows {words!r}:\n{self.screen()}")
            time.sleep(0.2)

    def close(self) -> None:
        """End the shell."""
        self.tmux("kill-server")


def picture_of(browser, *screens: str) -> None:
    """The screens, one below the other."""
    texts = []
    for screen in screens:
        console = Console(record=True, width=int(SCREEN[0]), file=io.StringIO())
        console.print(Text.from_ansi(screen.rstrip()), soft_wrap=True)
        texts.append(console.export_html(inline_styles=True, code_format="{code}", theme=MONOKAI))
    line = f'<span style="color: #5b6a72">{html.escape("─" * int(SCREEN[0]))}</span>'
    page = browser.new_page(viewport={"width": 900, "height": 600}, device_scale_factor=1.5)
    page.set_content(TERMINAL.format(text=f"\n{line}\n\n".join(texts)))
    page.locator("pre").screenshot(path=HERE / "terminal.png")


if __name__ == "__main__":
    main()
