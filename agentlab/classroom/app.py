"""The classroom as an ASGI application, and how `agentlab serve --classroom` starts it.

Under /classroom are the page and the numbers on it, for anybody in the room, and what the teacher
may change or reset, with the token; all other paths are the endpoint's.
"""

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

import msgspec

from agentlab._support import DATA
from agentlab._support.system import read_list
from agentlab.classroom._door import ClassroomDoor, Roster, own_addresses
from agentlab.classroom._room import Room
from agentlab.endpoint.contract import asgi
from agentlab.endpoint.contract.asgi import Receive, Scope, Send
from agentlab.endpoint.contract.openai_json import RequestError, decode
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.server.app import App, OnEnd
from agentlab.endpoint.server.class_page import SOLVED, TRIED
from agentlab.endpoint.server.serve import HOST, serve
from agentlab.errors import ConfigError
from agentlab.settings import Settings, from_environment, said

PRESET = "class"  # where none is chosen: that of lessons, with slots to share
_EVERYWHERE = {"0.0.0.0", "::"}
_SHORTEST_TOKEN = 12

_DATA: dict[str, Any] = msgspec.yaml.decode((DATA / "classroom.yaml").read_bytes())
_BOARD, _SETTINGS = "/classroom/board", "/classroom/settings"
_HEADERS = [(name.encode(), value.encode()) for name, value in _DATA["headers"].items()]


class Classroom:
    """The application that a class shares; `token` is the teacher's, `host` where it listens."""

    def __init__(
        self,
        settings: Settings,
        *,
        token: str,
        roster: Roster | None = None,
        host: str = HOST,
        on_end: OnEnd | None = None,
    ):
        self.room = room = Room(settings)
        self.urls: list[str] = []  # what learners are told, once it is known; the likeliest first
        self._preset = Path(settings.preset).stem
        self._roster = roster or Roster()
        self._roster.on_leave = room.forget
        self._page = {path: _in_words(*file) for path, file in _DATA["files"].items()}
        self._door = ClassroomDoor(self._roster, token=token, host=host)

        def end(span: Span) -> None:
            room.board.end(span)
            if on_end is not None:
                on_end(span)

        most = settings.longest_body_bytes
        self._endpoint = App(room, door=self._door, on_end=end, max_body_bytes=most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith("/classroom"):
            await self._endpoint(scope, receive, send)
            return
        try:
            self._door.enter(scope)
            await self._show(scope, receive, send)
        except RequestError as error:
            error.body["error"]["message"] = said(str(error))  # the page shows it
            again = asgi.way_out(error, self.room.time_scale)
            await asgi.respond(send, error.status, error.body, [*_HEADERS, *again])
        except asgi.ClientGone:
            return

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = asgi.routed(scope["path"], scope["method"], _ROUTES)
        if path in self._page:
            content, kind = self._page[path]
            await asgi.respond(send, 200, content, _HEADERS, kind)
        elif path == _BOARD:
            await asgi.respond(send, 200, self._numbers(), _HEADERS)
        elif path in (TRIED, SOLVED):
            learner, exercise = self._door.who(scope), scope["path"].removeprefix(path)
            self.room.tried(learner, exercise, solved=path == SOLVED)
            await asgi.respond(send, 200, {}, _HEADERS)
        else:
            self._door.refuse_learners(scope)
            body = await asgi.read_body(scope, receive) if scope["method"] == "POST" else None
            await asgi.respond(send, 200, _TEACHERS[path](self, body), _HEADERS)

    def _settings(self, body: bytes | None) -> dict[str, Any]:
        if body is not None:
            try:
                self.room.change(decode(body, dict[str, Any]))
            except ConfigError as error:
                raise RequestError(400, str(error), code="invalid_settings") from None
        return {"settings": self.room.controls, "exercises": self.room.exercises}

    def _clear(self, body: bytes) -> dict[str, Any]:
        self.room.board.clear()
        self._roster.forget()
        return self._numbers()

    def _remove(self, body: bytes) -> dict[str, Any]:
        name = self._roster.remove(decode(body, dict[str, str]).get("name", ""))
        return {"removed": name, "message": said(_DATA["removed"].format(name=name))}

    def _numbers(self) -> dict[str, Any]:
        room, preset = self.room, self.room.preset
        return {
            **room.board.numbers(room.now_s(), self._roster.names),
            "paused": room.controls.paused,
            "preset": self._preset if preset else None,
            "slots": preset.physics.slots if preset else None,
            "time_scale": room.time_scale,
            "urls": self.urls,
            "join": in_a_notebook(self.urls[0]) if self.urls else [],
        }


_TEACHERS: dict[str, Callable[[Classroom, Any], dict[str, Any]]] = {
    _SETTINGS: Classroom._settings,
    "/classroom/clear": Classroom._clear,
    "/classroom/remove": Classroom._remove,
}
_ROUTES = {path: ["GET"] for path in [*_DATA["files"], _BOARD]}
_ROUTES |= {path: ["POST"] for path in (*_TEACHERS, TRIED, SOLVED)} | {_SETTINGS: ["GET", "POST"]}


def _in_words(name: str, kind: str, words: str) -> tuple[bytes, bytes]:
    """Return a file of the page, its `words` in the reader's language, and its type."""
    page = (Path(__file__).with_name("page") / name).read_bytes().decode()
    return re.sub(words, lambda found: said(found[0]), page).encode(), kind.encode()


def in_a_notebook(url: str, name: str = "your-name") -> list[str]:
    """Return the lines that let a notebook ask the class at `url`."""
    return str(_DATA["notebook"]).format(url=url, name=name).splitlines()


def class_settings(**given: Any) -> Settings:
    """Return what the environment and `given` ask for, with `PRESET` where they name none."""
    preset = os.environ.get("AGENTLAB_PRESET") or PRESET
    return from_environment(**({"preset": preset} | given))


def serve_class(
    settings: Settings, *, port: int, host: str | None = None, learners: str | None = None,
    token: str | None = None, yes: bool | None = False, on_end: OnEnd | None = None,
) -> None:  # fmt: skip
    """Serve a class until a signal comes, on loopback unless `host` says otherwise.

    `learners` is a file with the class list, and `yes` lets the class ask a real model.
    """
    host, token = host or HOST, token or secrets.token_hex(8)
    if not re.fullmatch(f"[!-~]{{{_SHORTEST_TOKEN},}}", token):
        raise ConfigError(_DATA["token"].format(least=_SHORTEST_TOKEN, got=len(token)))
    if settings.real and (learners is None or not yes):
        raise ConfigError(_DATA["paid"].format(settings))
    listed = None if learners is None else read_list(learners, "class list")
    room = Classroom(settings, token=token, roster=Roster(listed), host=host, on_end=on_end)
    who = f"the {len(listed)} names of the class list" if listed else "any name"
    model = settings.upstream or f"preset {settings.preset}"

    def announce(url: str) -> None:
        end = url.rpartition(":")[2]  # the port, and /v1
        addresses = (own_addresses() or [HOST]) if host in _EVERYWHERE else []
        room.urls[:] = [f"http://{address}:{end}" for address in addresses] or [url]
        print(welcome(room, host=host, token=token, who=who, model=model), flush=True)

    serve(room, port, announce=announce, host=host)


def welcome(room: Classroom, *, host: str, **words: str) -> str:
    """Return what the teacher reads in the terminal: `token`, and `who` may ask which `model`."""
    first, *others = room.urls
    network = _DATA["only_here" if host in (HOST, "localhost") else "network"]
    here, port = HOST if host in _EVERYWHERE else host, first.rpartition(":")[2]
    words |= {"network": network, "page": f"http://{here}:{port.removesuffix('/v1')}/classroom"}
    words["notebook"] = indent("\n".join(in_a_notebook(first)), "    ")
    words["also"] = _DATA["also"].format(others=", ".join(others)) if others else ""
    return str(_DATA["welcome"]).format(url=first, pace=room.room.time_scale, **words)
