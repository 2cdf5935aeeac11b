"""As many connections as the system allows: the endpoint's, and those of its clients."""

from __future__ import annotations


def allow_many_connections() -> None:
    """Raise this process's limit on open files to what the system allows: sockets count."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 65_536)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS refuses what its kernel cannot do; the old limit stays
        return
