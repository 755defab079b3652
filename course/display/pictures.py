"""Pictures as data URIs, so that a page needs no other file and no network."""

import base64
import binascii
import re
from pathlib import Path
from urllib.parse import unquote

MAX_BYTES = 10_000_000
MIME_TYPES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp")  # in the order of preference


def picture_uri(address: str, attachments: object, folder: str) -> str | None:
    """Return the data URI of the picture that a notebook names; None if it names none.

    It may be an attachment of the cell, a data URI already, or a regular file in the notebook's folder.
    """
    if address.startswith("data:"):
        return address
    if address.startswith("attachment:"):
        return _attachment(address.removeprefix("attachment:"), attachments)
    if re.match(r"[a-zA-Z][\w+.-]*:|//|#", address):
        return None
    data = _read(Path(folder).resolve(), unquote(address)) if folder else b""
    mime_type = _mime_type(data)
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}" if mime_type else None


def is_base64(data: object) -> bool:
    try:
        return isinstance(data, str) and bool(base64.b64decode(data))
    except (binascii.Error, ValueError):
        return False


def _attachment(name: str, attachments: object) -> str | None:
    bundle = attachments.get(name, attachments.get(unquote(name))) if isinstance(attachments, dict) else None
    for mime_type in MIME_TYPES if isinstance(bundle, dict) else ():
        if is_base64(bundle.get(mime_type)):
            return f"data:{mime_type};base64,{''.join(bundle[mime_type].split())}"
    return None


def _read(folder: Path, name: str) -> bytes:
    """Return a file's content; nothing if it is not a regular file inside the folder, or too large."""
    try:
        path = (folder / name).resolve()
        is_inside = path.is_relative_to(folder) and path == folder / name  # no symbolic link leads there
        if is_inside and path.is_file() and path.stat().st_size <= MAX_BYTES:
            return path.read_bytes()
    except (OSError, ValueError):  # no file can have such a name
        pass
    return b""


def _mime_type(data: bytes) -> str | None:
    """Return the type that the content itself shows: a name proves nothing."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    starts = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
    for start, mime_type in starts.items():
        if data.startswith(start):
            return mime_type
    is_svg = re.match(rb"\s*(<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE[^>\[]*>|\s)*<svg\b", data[:4000], re.DOTALL)
    return "image/svg+xml" if is_svg else None
