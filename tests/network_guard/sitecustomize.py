"""Refuse every connection beyond loopback, in this process and in all that it starts.

Python runs this file at start-up in every process that has its folder on PYTHONPATH, so notebook
kernels and endpoints are guarded like the tests themselves. A refused attempt is also written to
the file that AGENTLAB_GUARD_LOG names: code under test may swallow the error, but not the line.

It also spares all of them a slow import, and certificates, which none of them needs.
"""

import ipaddress
import os
import sys
import traceback
import types

_LOCAL_NAMES = {"", "localhost", "ip6-localhost", None}


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host in _LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False  # a name: looking it up would be a connection already
    return address.is_loopback or address.is_unspecified


def _target(event: str, arguments: tuple[object, ...]) -> object:
    """The host that an audit event is about; "" where there is none."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        return arguments[0]
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        return address[0] if isinstance(address, tuple) and address else ""  # else AF_UNIX
    return ""


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    if not event.startswith("socket."):
        return
    host = _target(event, arguments)
    if _is_local(host):
        return
    stack = " < ".join(
        f"{frame.name} ({os.path.basename(frame.filename)}:{frame.lineno})"
        for frame in reversed(traceback.extract_stack(limit=8)[:-1])
    )
    if log := os.environ.get("AGENTLAB_GUARD_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{event} {host!r} in process {os.getpid()}: {stack}\n")
    raise ConnectionRefusedError(f"{event} to {host!r} leaves this machine; the course must not")


def _run_the_one_behind() -> None:
    """Run the sitecustomize that this one hides, if there is one."""
    import importlib.machinery
    import importlib.util

    here = os.path.dirname(os.path.abspath(__file__))
    rest = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


# Who reads a notebook, and JupyterLab, and CrewAI import jsonschema, which builds a grammar of IRIs
# from this package for a second or two. No schema here asks for IRIs, and jsonschema does without.
sys.modules["rfc3987_syntax"] = None
# Each client of httpx reads the certificates of all authorities, which takes it 20 ms. Nobody is
# met here whose certificate could be checked, so one authority will do.
_ONE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "no_authority.pem")
os.environ["SSL_CERT_FILE"] = _ONE
sys.modules["certifi"] = types.ModuleType("certifi")
sys.modules["certifi"].where = lambda: _ONE
sys.addaudithook(_guard)
if __name__ == "sitecustomize":
    _run_the_one_behind()
