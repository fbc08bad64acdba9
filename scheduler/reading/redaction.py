"""Documents fit to be shown: whatever may be a secret is replaced, rather too much than too little."""

from __future__ import annotations

import re
from typing import Any, Final

from scheduler.reading.database_url import redact_url

MASK: Final = "***"
_SECRET_KEY: Final = re.compile(
    r"secret|passw|passphrase|token|credential|api[_-]?key|private|webhook|^auth|^key$", re.IGNORECASE
)
# A name, an address or a variable's name that speaks of a secret is none itself.
_HARMLESS_KEY: Final = re.compile(r"(?<!hook)_(?:url|uri|name|field|env|id)$", re.IGNORECASE)
# Everything in these mappings may be a secret: their keys follow no rule.
_OPAQUE: Final = frozenset({"env", "headers", "cookies"})
_REFERENCE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", re.ASCII)


def redact(value: Any, secret: bool = False) -> Any:
    """The document with secrets masked: texts under telling keys, passwords inside URLs; `${NAME}` stays readable."""
    if isinstance(value, dict):
        return {key: redact(item, _hides(str(key), item, secret)) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item, secret) for item in value]
    if secret and value is not None and not isinstance(value, bool):
        return value if isinstance(value, str) and _REFERENCE.fullmatch(value) else MASK
    return redact_url(value) if isinstance(value, str) else value


def _hides(key: str, value: Any, secret: bool) -> bool:
    if secret or (isinstance(value, dict) and key.lower() in _OPAQUE):
        return True
    return bool(_SECRET_KEY.search(key)) and not _HARMLESS_KEY.search(key)
