"""Find the browser that the tests drive: Chromium, Chrome or Edge, whichever this machine has.

python tools/browser.py              prints its path, or says how to get one and fails
python tools/browser.py --install    gets one first, if there is none
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

GET_ONE = (
    "no Chromium, Chrome or Edge on this machine; `python tools/browser.py --install` fetches one, "
    "or name one: AGENTLAB_BROWSER=/path/of/chrome"
)

_ON_THE_PATH = (
    "chromium chromium-browser google-chrome google-chrome-stable microsoft-edge "
    "microsoft-edge-stable chrome msedge"
).split()

_BELOW_PROGRAM_FILES = (
    "Google/Chrome/Application/chrome.exe",
    "Microsoft/Edge/Application/msedge.exe",
    "Chromium/Application/chrome.exe",
)

_BELOW_APPLICATIONS = (
    "Google Chrome.app/Contents/MacOS/Google Chrome",
    "Chromium.app/Contents/MacOS/Chromium",
    "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)

_PLAYWRIGHTS_OWN = (
    "chromium-*/chrome-linux*/chrome",
    "chromium-*/chrome-win*/chrome.exe",
    "chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
)


def find(environ: Mapping[str, str] = os.environ) -> str | None:
    """The browser's path, or None: the one AGENTLAB_BROWSER names, else the first there is.

    Raises:
        FileNotFoundError: If AGENTLAB_BROWSER names a file that is not there; another browser
            in its place would be a surprise.
    """
    if named := environ.get("AGENTLAB_BROWSER"):
        if not Path(named).is_file():
            raise FileNotFoundError(f"AGENTLAB_BROWSER={named}: there is no such file")
        return named
    for name in _ON_THE_PATH:
        if path := shutil.which(name, path=environ.get("PATH", "")):
            return path
    return next((str(path) for path in _usual_places(environ) if path.is_file()), None)


def _usual_places(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where installers of Windows and macOS put a browser, and Playwright: not on the PATH."""
    for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        if folder := environ.get(variable):
            yield from (Path(folder) / below for below in _BELOW_PROGRAM_FILES)
    for folder in ("/Applications", f"{environ.get('HOME', '')}/Applications"):
        yield from (Path(folder) / below for below in _BELOW_APPLICATIONS)
    home = environ.get("HOME", "")
    for cache in (f"{home}/.cache", f"{home}/Library/Caches", environ.get("LOCALAPPDATA", "")):
        for executable in _PLAYWRIGHTS_OWN:
            yield from sorted(Path(cache, "ms-playwright").glob(executable))


def install() -> None:
    """Get Chromium, and fonts that draw Korean: from Debian where root may, else Playwright's.

    Says what went wrong, if anything does; `find` then finds none.
    """
    if shutil.which("apt-get") and os.geteuid() == 0:
        # Without what a desktop would add: printers and more, a hundred packages in all.
        get = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
        commands = [["apt-get", "update", "-qq"]]
        commands.append([*get, "chromium", "fonts-liberation", "fonts-noto-cjk"])
    else:
        commands = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    for command in commands:
        print(" ".join(command), file=sys.stderr, flush=True)
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
            return


def main() -> int:
    try:
        found = find()
        if found is None and "--install" in sys.argv[1:]:
            install()
            found = find()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    print(found or GET_ONE, file=sys.stdout if found else sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    raise SystemExit(main())
