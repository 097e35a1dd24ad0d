"""Where the load may go."""

import re


def targets(edge, allowed):
    """Reads EDGE. It lets through what is on this machine, and what the operator has named twice."""
    return [check(url, allowed) for url in edge.split(",")]


def check(url, allowed):
    """Returns one target without a slash at its end."""
    parts = re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?/?", url, re.IGNORECASE)
    if not parts:
        raise SystemExit(f"EDGE: {url!r} is not like http://127.0.0.1:8080")
    host = parts[1].lower()
    if not re.fullmatch(r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]", host) and allowed != host:
        raise SystemExit(f"EDGE: {host} is not this machine. If it is yours to load, set ALLOW_HOST to the same name.")
    return url.rstrip("/")
