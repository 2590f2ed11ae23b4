"""Object stores that a run may use: their endpoints must be ones that the user named.

Requests to a store are signed with the user's credentials, and to some carry a token. A recorded
``files_at`` may therefore name the stores' own endpoints, or one that the user names as well: by
``--storage`` on this machine, now or for an earlier search, or by ``AWS_ENDPOINT_URL``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, urlsplit

from nas.core.files import Place, place_at
from nas.core.remote import RemotePath
from nas.store.recorded import Recorded, is_remembered, remember

# A region becomes a part of the host's name.
_REGION = re.compile(r"[A-Za-z0-9-]{1,40}")

# The protocol, and the host with its port.
Endpoint = tuple[str, str]

# The usual endpoint of a store, encrypted.
_USUAL: Endpoint = ("https", "")
_KIND = "endpoint"


def place_of(files_at: str) -> Place:
    """Return the place that ``files_at`` names; the user must have named a recorded endpoint.

    Raises:
        ValueError: it is not a place, or a store that the user did not name.
    """
    place = place_at(files_at)
    if not isinstance(place, RemotePath):
        return place
    query = dict(parse_qsl(place.query))
    endpoint, region = _endpoint(query), query.get("region", "none")
    if not isinstance(files_at, Recorded):
        remember(_KIND, "://".join(endpoint))
        return place
    if not _REGION.fullmatch(region):
        raise ValueError(f"storage {place} must have a plain region, got {region!r}")
    is_named = endpoint in {_USUAL, *_of_environment()}
    if not is_named and not is_remembered(_KIND, "://".join(endpoint)):
        raise ValueError(
            f"storage {place} is from a run folder with an endpoint that you did not name, "
            f"{endpoint[1] or endpoint[0]}: name it with --storage URL, or set AWS_ENDPOINT_URL"
        )
    return place


def _endpoint(query: Mapping[str, str]) -> Endpoint:
    """Return a store's protocol and host; no host means the store's usual one."""
    override = query.get("endpoint_override", "")
    scheme, slashes, rest = override.rpartition("://")
    protocol = scheme if slashes else query.get("scheme", "https")
    return protocol.lower(), rest.rstrip("/").lower()


def _of_environment() -> Iterator[Endpoint]:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        parts = urlsplit(os.environ.get(name, ""))
        if parts.netloc:
            yield parts.scheme.lower(), parts.netloc.lower()
