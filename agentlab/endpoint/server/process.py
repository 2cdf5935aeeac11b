"""The endpoint in a process of its own, which ends with its owner: start, read its record, stop."""

import os
import secrets
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from agentlab.endpoint.contract.record import Span
from agentlab.errors import EndpointError
from agentlab.settings import Settings

_OWN = "AGENTLAB_OWN"  # the child's key and settings
_START_TIMEOUT_S = 60.0


class EndpointProcess:
    """An endpoint that lives no longer than this process; EndpointError if it does not start.

    Its `url` ends in `/v1`; clients show its `key`. A real model's `time_scale` is 1. At 0 of its
    clock the machine's, `time.monotonic`, shows `zero_s`.
    """

    loop = None

    def __init__(self, settings: Settings):
        self.settings = settings
        self.key = f"lab-{secrets.token_urlsafe(24)}"
        self.url, self.time_scale, self.zero_s = self._start()
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """True while the endpoint's process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the endpoint and wait until it is gone; requests in flight break off."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()  # a fork of this process may hold the pipe, too
        self._process.wait()

    def mark(self) -> int:
        """Return a place in the endpoint's record: the number of requests so far."""
        return int(self._get("/lab/mark")["mark"])

    def cpu_s(self) -> float:
        """Return the processor seconds that the endpoint has taken since it started."""
        return float(self._get("/lab/mark")["cpu_s"])

    def since(self, mark: int) -> list[Span]:
        """Return the requests recorded after `mark`, in order of arrival."""
        return msgspec.convert(self._get(f"/lab/spans?since={mark}")["spans"], list[Span])

    def _get(self, path: str) -> Any:
        import httpx  # not in the child, which would start later

        url, shown = self.url.removesuffix("/v1") + path, {"authorization": f"Bearer {self.key}"}
        try:
            answer = httpx.get(url, headers=shown, timeout=30, trust_env=False, verify=False)
        except httpx.HTTPError as error:
            what = f"the endpoint at {self.url} does not answer ({type(error).__name__})"
            way = "it was stopped, or has failed; the next question starts a new one"
            raise EndpointError(f"{what}; {way}") from None
        if answer.is_error:
            raise EndpointError(f"the endpoint's record cannot be read: {answer.text}")
        return msgspec.json.decode(answer.content)

    def _start(self) -> tuple[str, float, float]:
        own = {_OWN: msgspec.json.encode((self.key, self.settings)).decode()}
        with tempfile.TemporaryFile() as complaints:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agentlab.endpoint.server.process"],
                env=os.environ | own,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,  # an interrupt of the notebook is not for the endpoint
            )
            assert self._process.stdout is not None
            watchdog = threading.Timer(_START_TIMEOUT_S, self._process.kill)
            watchdog.start()
            line = self._process.stdout.readline()
            watchdog.cancel()
            if line:
                self._process.stdout.close()
                return msgspec.json.decode(line, type=tuple[str, float, float])
            self._process.communicate()  # ends it, and closes its pipes
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip() or "it said nothing"
            raise EndpointError(f"the endpoint did not start: {said}")


def main() -> int:
    """Serve as the environment says, in the child, until standard input ends."""
    from agentlab.endpoint.server.app import build_app
    from agentlab.endpoint.server.serve import serve

    lab_key, settings = msgspec.json.decode(os.environ.pop(_OWN), type=tuple[str, Settings])
    end_with_owner()
    try:
        app = build_app(settings, lab_key=lab_key)

        def announce(url: str) -> None:
            time_scale = app.model.time_scale
            zero_s = time.monotonic() - app.model.now_s() / time_scale
            print(msgspec.json.encode((url, time_scale, zero_s)).decode(), flush=True)

        serve(app, port=0, announce=announce)
    except Exception as error:  # the owner shows it; a traceback would only hide it
        print(error, file=sys.stderr)
        return 1
    return 0


def end_with_owner(end: Callable[[], object] = lambda: os._exit(0)) -> None:
    """Call `end` when the process that started this one is gone, or has closed its pipe to it.

    This one was started with `stdin=subprocess.PIPE`, which a fork of the owner may keep open.
    """
    parent = os.getppid()

    def watch() -> None:
        if os.name != "posix":
            sys.stdin.buffer.read()
        while os.name == "posix" and os.getppid() == parent:
            if select.select([0], [], [], 0.5)[0] and not os.read(0, 1):
                break
        end()

    threading.Thread(target=watch, name="owner", daemon=True).start()


if __name__ == "__main__":
    os._exit(main())  # a thread reads standard input: Python would complain of it at its end
