"""Storage URLs and their passwords, which are neither printed nor written anywhere.

A run folder records the URL without its password. A driver takes the password from the URL of its
command line or from the environment (``JOULENAS_STORAGE_PASSWORD``, or what the database's own
client reads, such as ``PGPASSWORD`` and ``~/.pgpass``): a resumed search needs none on its command
line.
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

PASSWORD_VARIABLE = "JOULENAS_STORAGE_PASSWORD"
# Keys of a query whose values are secrets.
_SECRET_KEYS = frozenset({"password", "passwd", "pwd", "sslpassword", "passfile", "token"})
_HIDDEN = "***"
# Shown in place of a text that may contain a password anywhere.
_NO_URL = "URL that is no storage URL"


def without_password(url: str) -> str:
    """Return ``url`` without any password, in authority or query."""
    return _rewritten(url, None)


def shown(url: str) -> str:
    """Return ``url`` with ``***`` in place of a password, for messages."""
    return _rewritten(url, _HIDDEN)


def with_password(url: str) -> str:
    """Add the password of ``JOULENAS_STORAGE_PASSWORD`` if ``url`` has a user and no password.

    Without the variable the URL is unchanged, and the database's own client looks for one.
    """
    password = os.environ.get(PASSWORD_VARIABLE)
    if not password:
        return url
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        # SQLAlchemy, which connects, parses it, so that no other part of the URL can receive it.
        parsed = make_url(str(url))
    except (ArgumentError, ValueError):
        return url
    if not parsed.username or parsed.password is not None:
        return url
    return parsed.set(password=password).render_as_string(hide_password=False)


def scrub(text: str, url: str | None) -> str:
    """Hide every secret of ``url`` in ``text``, quoted as in the URL or plain."""
    if url is None:
        return text
    text = text.replace(url, shown(url))
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _HIDDEN, text)
    return text


def _authority(url: str) -> str:
    """Return the part between ``//`` and the path; a password may contain ``#`` or ``?``."""
    _, slashes, rest = url.partition("://")
    if not slashes:
        return ""
    end = rest.find("/", rest.rfind("@") + 1)
    return rest if end < 0 else rest[:end]


def _rewritten(url: str, password: str | None) -> str:
    """Return ``url`` with each secret replaced by ``password``, or removed."""
    if "://" not in url:
        return _NO_URL
    user, at, host = _authority(url).rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        mine = name if not colon or password is None else f"{name}:{password}"
        url = url.replace(f"//{user}@{host}", f"//{mine}@{host}", 1)
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return _NO_URL
    if not any(key.lower() in _SECRET_KEYS for key, _ in pairs):
        return url
    query = [
        (key, password if key.lower() in _SECRET_KEYS else value)
        for key, value in pairs
        if key.lower() not in _SECRET_KEYS or password is not None
    ]
    return urlunsplit(parts._replace(query=urlencode(query, safe="*/:")))


def _secrets(url: str) -> set[str]:
    user, at, _ = _authority(url).rpartition("@")
    secrets = {user.partition(":")[2]} if at else set()
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        query = []
    secrets |= {value for key, value in query if key.lower() in _SECRET_KEYS}
    return {form for secret in secrets if secret for form in (secret, unquote(secret))}
