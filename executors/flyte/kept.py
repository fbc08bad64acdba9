"""The metadata of Flyte's connectors as the worker keeps it."""

from __future__ import annotations

import base64
import json
from typing import Any

from executors.errors import RetryableError
from executors.external_job import Job


def kept_job(task_type: str, encoded: bytes) -> Job:
    """The job whose metadata a connector has encoded so: a text where it is one, for people to read.

    Its id is the member `job_id` or `id` of a JSON object, or the only one that there is, if it is a text or a number;
    it begins with the type, for two kinds of jobs may number theirs alike.
    """
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        text = "\0"
    meta = {"base64": base64.b64encode(encoded).decode()} if "\0" in text else {"text": text}
    found = _id(text)
    return Job(meta, f"{task_type}:{found}" if found else "")


def kept_meta(job: Job) -> bytes:
    """What `kept_job` was given; `RetryableError` if the worker keeps something else."""
    try:
        if "text" in job.meta:
            return str(job.meta["text"]).encode()
        return base64.b64decode(job.meta["base64"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        # Another version has written it, and a worker of that version may take over.
        raise RetryableError(f"the metadata of the job cannot be read: {error}") from error


def _id(text: str) -> str:
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    names = ["job_id", "id", *(document if len(document) == 1 else ())]
    found = next((document[name] for name in names if name in document), None)
    return str(found) if isinstance(found, (str, int)) and not isinstance(found, bool) else ""
