"""Credentials are hidden in every text that people or other programs may read: messages, log lines, reports.

Hidden are the values of environment variables that hold a secret, passwords in URLs, signed queries, and what has the
form of a key of AWS or Prefect.
"""

import os
import re
from urllib.parse import urlsplit

HIDDEN = "***"

_NAMES = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|AUTH_STRING|CREDENTIAL|PRIVATE_KEY", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(_FILE|_PATH|_DIR|_URI|_URL|_NAME)$", re.IGNORECASE)
_SHORTEST = 8  # characters; a shorter value is a word that may stand in any text

_PATTERNS = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^/\s?#'\"]+@"), HIDDEN + "@"),
    # ...?X-Amz-Signature=...&token=...
    (
        re.compile(
            r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|[\w-]*token|[\w-]*secret|"
            r"password|api_?key|secret_?access_?key)(\s*[=:]\s*|%3D)(?!\*\*\*)[^&\s'\",;}]+"
        ),
        r"\1\2" + HIDDEN,
    ),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*(?:b?['\"])?)[^\n'\"]+"), r"\1" + HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"\bpn[ub]_[A-Za-z0-9]{16,}"), HIDDEN),
)


def hide_credentials(text: str) -> str:
    """A text with ``***`` in the place of each credential."""
    for value in _secret_values():
        text = text.replace(value, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def has_credentials(url: str) -> bool:
    """Whether a URL carries a password or a signature, and would take it to wherever it is written."""
    return "://" in url and ("@" in urlsplit(url).netloc or hide_credentials(url) != url)


def _secret_values() -> list[str]:
    values = {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and _NAMES.search(name) and not _NO_SECRET.search(name)
    }
    return sorted(values, key=len, reverse=True)  # one may be a part of another
