"""Images by reference: which URIs may be read, and reading them.

A record is written by whoever can write to the topic; its URI must not make segwatch read ``/etc/passwd`` or knock at a
host inside the network. So a URI is read only when it lies within a prefix that the settings allow, compared component
by component (``https://images.example`` does not allow ``https://images.example.evil.org``, nor ``/data/img``
``/data/img-old``), and whatever is written in a way that two programs could read differently is refused rather than
repaired.
"""

from __future__ import annotations

import http.client
import os
import re
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

from monitor.errors import BadRecord
from monitor.records.reasons import shorten

MAX_URI = 4096
SCHEMES = ("file", "s3", "https")
READ_BYTES = 1 << 16

# Escapes of '.', '/', '\', '%' and NUL: nobody needs them in a path, and everybody decodes them a different number of
# times.
_AMBIGUOUS = re.compile(r"%(?:2e|2f|5c|25|00)|%(?![0-9a-f]{2})", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Location:
    """A URI that was judged: ``path`` is decoded, begins with '/', and has no '.', '..' or empty segment."""

    scheme: str
    authority: str
    path: str
    url: str

    def within(self, prefix: Location) -> bool:
        """Same scheme and authority, and a path below the prefix's (or equal to it)."""
        if (self.scheme, self.authority) != (prefix.scheme, prefix.authority):
            return False
        folder = prefix.path.rstrip("/")
        return self.path == prefix.path or self.path.startswith(folder + "/")


class S3Client(Protocol):
    """What reads an object: `monitor.s3.S3Reader`."""

    def get_object(self, *, Bucket: str, Key: str) -> Any:
        """A mapping whose ``Body`` can be read."""


def parse_uri(uri: str) -> Location:
    """Raises BadRecord (``uri_refused``) for everything that cannot be judged without doubt."""
    if not uri or len(uri) > MAX_URI:
        raise _refused(uri, f"expected 1 to {MAX_URI} characters")
    if _UNPRINTABLE.search(uri):
        raise _refused(uri, "it has a space, a control character or a backslash")
    if _AMBIGUOUS.search(uri):
        raise _refused(uri, "it escapes a character that could change the path")
    try:
        parts = urllib.parse.urlsplit(uri)
        port = parts.port
    except ValueError:
        raise _refused(uri, "it is malformed") from None
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        raise _refused(uri, "only file:, s3: and https: are known")
    if "@" in parts.netloc:
        raise _refused(uri, "it carries a user name")
    if "#" in uri or (scheme != "https" and "?" in uri):
        raise _refused(uri, "it has a query or a fragment")
    if scheme != "file" and not uri.isascii():
        raise _refused(uri, "characters beyond ASCII must be escaped")
    host = (parts.hostname or "").rstrip(".")
    if (scheme == "file") == bool(host.replace("localhost", "") if scheme == "file" else host):
        raise _refused(uri, "a file: URI has no host" if scheme == "file" else "it has no host")
    try:
        path = urllib.parse.unquote(parts.path, errors="strict")
    except UnicodeDecodeError:
        raise _refused(uri, "its escapes are not UTF-8") from None
    segments = path.split("/")
    if segments[0] or any(segment in (".", "..") for segment in segments) or "" in segments[1:-1]:
        raise _refused(uri, "its path is not absolute and plain")
    authority = "" if scheme == "file" else host + (f":{port}" if port not in (None, 443) else "")
    query = f"?{parts.query}" if parts.query else ""
    return Location(scheme, authority, path, f"{scheme}://{authority}{parts.path or '/'}{query}")


def check_uri(uri: str, prefixes: Sequence[str]) -> tuple[Location, Location]:
    """The URI and the prefix that allows it; no I/O. Raises BadRecord (``uri_refused``)."""
    if not prefixes:
        raise _refused(uri, "images.uri_prefixes allows none")
    location = parse_uri(uri)
    for prefix in prefixes:
        allowed = parse_uri(prefix)
        if location.within(allowed):
            return location, allowed
    raise _refused(uri, "it is outside images.uri_prefixes")


def fetch_image(
    uri: str,
    prefixes: Sequence[str],
    max_bytes: int,
    timeout_s: float = 10.0,
    s3: S3Client | None = None,
) -> bytes:
    """The bytes that an allowed URI names.

    ``timeout_s`` bounds each wait, and the transfer of the body as a whole. Raises BadRecord: ``uri_refused``,
    ``image_too_large`` above ``max_bytes``, ``image_unavailable`` where reading fails.
    """
    location, allowed = check_uri(uri, prefixes)
    deadline = time.monotonic() + timeout_s
    if location.scheme == "file":
        return _read_file(location, allowed, max_bytes, deadline)
    if location.scheme == "https":
        return _read_https(location, prefixes, max_bytes, timeout_s, deadline)
    if s3 is None:
        raise _refused(uri, "no S3 client is configured")
    try:
        body = s3.get_object(Bucket=location.authority, Key=location.path.removeprefix("/"))["Body"]
        return _read_capped(body, location.url, max_bytes, deadline)
    except BadRecord:
        raise
    except Exception as error:  # the client's own classes
        raise _unavailable(location.url, error) from None


def _read_file(location: Location, allowed: Location, max_bytes: int, deadline: float) -> bytes:
    """Symbolic links are followed only as long as they stay within the allowed folder."""
    folder = os.path.realpath(allowed.path)
    real = os.path.realpath(location.path)
    if real != folder and not real.startswith(folder.rstrip("/") + "/"):
        raise _refused(location.url, "a symbolic link leads out of images.uri_prefixes")
    try:
        # The path is resolved, so a link here means that somebody swapped it since; a pipe must not block.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unavailable(location.url, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(location.url, "it is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            return _read_capped(file, location.url, max_bytes, deadline)
        except OSError as error:
            raise _unavailable(location.url, error) from None


class _StayWithin(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a record could have pointed itself."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = prefixes

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        location, _ = check_uri(newurl, self._prefixes)
        if location.scheme != "https":
            raise _refused(newurl, "a redirect leaves https:")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read_https(
    location: Location, prefixes: Sequence[str], max_bytes: int, timeout_s: float, deadline: float
) -> bytes:
    opener = urllib.request.build_opener(_StayWithin(prefixes))
    request = urllib.request.Request(location.url, headers={"User-Agent": "segwatch", "Accept": "image/*"})
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return _read_capped(response, location.url, max_bytes, deadline)
    except urllib.error.HTTPError as error:
        error.close()
        raise BadRecord("image_unavailable", f"{shorten(location.url)}: HTTP status {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(location.url, error) from None


def _read_capped(stream: Any, url: str, max_bytes: int, deadline: float) -> bytes:
    parts, total = [], 0
    # read() waits until it has all that was asked for, however slowly that drips in; read1() hands over what has come.
    read = getattr(stream, "read1", stream.read)
    while part := read(READ_BYTES):
        parts.append(part)
        total += len(part)
        if total > max_bytes:
            raise BadRecord("image_too_large", f"{shorten(url)}: more than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise BadRecord("image_unavailable", f"{shorten(url)}: took too long")
    return b"".join(parts)


def _refused(uri: str, why: str) -> BadRecord:
    return BadRecord("uri_refused", f"image.uri {shorten(_without_query(uri))}: {why}")


def _unavailable(url: str, error: Exception) -> BadRecord:
    cause = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return BadRecord("image_unavailable", f"{shorten(_without_query(url))}: {cause}")


def _without_query(uri: str) -> str:
    """Signed URLs carry their secret in the query: it stays out of messages."""
    return uri.partition("?")[0]
