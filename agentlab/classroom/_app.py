"""The classroom as an ASGI application: the endpoint for the class, and the page for the projector.

/v1/...               the endpoint, for anyone who shows a name
/lab/spans            a learner's own requests; all of them for the teacher's token
/classroom            the page
/classroom/board      the numbers on it: names and counts, for anybody in the room
/classroom/settings   what the teacher may change; GET and POST, with the token
/classroom/clear      set all counts to zero; POST, with the token
/classroom/remove     let a name in no longer; POST, with the token
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agentlab.classroom._door import ClassroomDoor, NotALearner, Roster
from agentlab.classroom._room import Room
from agentlab.endpoint.contract.asgi import (
    ClientGone,
    Receive,
    Scope,
    Send,
    read_body,
    respond,
    unknown_route,
    way_out,
)
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.server.app import App, OnEnd
from agentlab.errors import ConfigError
from agentlab.settings import Settings

T = TypeVar("T")

_PAGE = Path(__file__).with_name("page")
_FILES = {
    "/classroom": ("index.html", b"text/html; charset=utf-8"),
    "/classroom/style.css": ("style.css", b"text/css; charset=utf-8"),
    "/classroom/board.js": ("board.js", b"text/javascript; charset=utf-8"),
    "/classroom/icon.svg": ("icon.svg", b"image/svg+xml"),
}
_BOARD, _SETTINGS = "/classroom/board", "/classroom/settings"
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class _Removal(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Classroom:
    """The application that a class shares; `token` is the teacher's, `host` where it listens."""

    def __init__(
        self,
        settings: Settings,
        *,
        token: str,
        roster: Roster | None = None,
        host: str = "127.0.0.1",
        on_end: OnEnd | None = None,
    ):
        self.room = room = Room(settings)
        self.urls: list[str] = []  # what learners are told, once it is known; the likeliest first
        self._preset = Path(settings.preset).stem
        self._roster = roster or Roster()
        self._roster.on_leave = room.forget
        self._door = ClassroomDoor(self._roster, token=token, host=host)

        def end(span: Span) -> None:
            room.board.end(span)
            if on_end is not None:
                on_end(span)

        most = settings.longest_body_bytes
        self._endpoint = App(room, door=self._door, on_end=end, max_body_bytes=most)
        self._files = {
            path: (_PAGE.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith("/classroom"):
            await self._endpoint(scope, receive, send)
            return
        try:
            self._door.enter(scope)
            await self._show(scope, receive, send)
        except RequestError as error:
            again = way_out(error, self.room.time_scale)
            await respond(send, error.status, error.body, [*_HEADERS, *again])
        except ClientGone:
            return

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method == "GET" and path in self._files:
            body, kind = self._files[path]
            await respond(send, 200, body, _HEADERS, kind)
        elif method == "GET" and path == _BOARD:
            await respond(send, 200, self._numbers(), _HEADERS)
        elif (method, path) in _TEACHERS:
            self._door.refuse_learners(scope)
            body = await read_body(scope, receive) if method == "POST" else b""
            await respond(send, 200, _TEACHERS[method, path](self, body), _HEADERS)
        else:
            teachers = [path for verb, path in _TEACHERS if verb == "POST"]
            raise unknown_route(scope, [*_FILES, _BOARD, *teachers])

    def _settings(self, body: bytes = b"") -> dict[str, Any]:
        return {"settings": self.room.controls}

    def _change(self, body: bytes) -> dict[str, Any]:
        try:
            self.room.change(self.room.controls.changed(_decoded(body, dict[str, Any])))
        except ConfigError as error:
            raise RequestError(400, str(error), code="invalid_settings") from None
        return self._settings()

    def _clear(self, body: bytes) -> dict[str, Any]:
        self.room.board.clear()
        self._roster.forget()
        return self._numbers()

    def _remove(self, body: bytes) -> dict[str, Any]:
        try:
            name = self._roster.remove(_decoded(body, _Removal).name)
        except NotALearner as error:
            raise RequestError(404, str(error), param="name", code="no_such_learner") from None
        message = f"{name} is removed, and refused until you reset the counts."
        return {"removed": name, "message": message}

    def _numbers(self) -> dict[str, Any]:
        room, preset = self.room, self.room.preset
        return {
            **room.numbers(self._roster.names),
            "paused": room.controls.paused,
            "preset": self._preset if preset else None,
            "slots": preset.physics.slots if preset else None,
            "time_scale": room.time_scale,
            "urls": self.urls,
            "join": in_a_notebook(self.urls[0]) if self.urls else [],
        }


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"The body is not what is expected here: {error}.") from None


_TEACHERS: dict[tuple[str, str], Callable[[Classroom, bytes], dict[str, Any]]] = {
    ("GET", _SETTINGS): Classroom._settings,
    ("POST", _SETTINGS): Classroom._change,
    ("POST", "/classroom/clear"): Classroom._clear,
    ("POST", "/classroom/remove"): Classroom._remove,
}


def in_a_notebook(url: str, name: str = "your-name") -> list[str]:
    """Return the lines that let a notebook ask the class at `url`, the same on every system.

    They set the environment, from which every later `lab.configure` starts, too: with a key and no
    address there, it would lead to OpenAI.
    """
    return [
        "import os",
        "from agentlab import lab",
        f'os.environ["OPENAI_BASE_URL"] = "{url}"',
        f'os.environ["OPENAI_API_KEY"] = "{name}"',
        "lab.configure()",
    ]
