"""Asking a worker over HTTP how it is and what it did.

web = Web(worker)
web.until_ready()
web.status("/livez"), web.figures()['scheduler_fires_total{kind="scheduled"}']
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.worlds import WorkerProcess, eventually

ANY_PORT = {"enabled": True, "port": 0}


class Web:
    """One worker's web port; where it listens is read from its log."""

    def __init__(self, worker: WorkerProcess, token: str | None = None) -> None:
        worker.until_said("listening")
        match = re.search(r"listening\s.*url=http://([\w.:\[\]]+)", worker.log())
        assert match, worker.log()
        self._address = urlsplit(f"http://{match[1]}")
        self._token = token

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._address.port
        return self._address.port

    def ask(
        self, path: str, method: str = "GET", *, token: str | None = None, timeout: float = 5
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of an answer; `OSError` where there is none."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        token = token or self._token
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read()
        except HTTPException as error:
            raise OSError(repr(error)) from error
        finally:
            connection.close()

    def status(self, path: str, *, timeout: float = 5) -> int | None:
        """The status of an answer; None where there is none in time."""
        try:
            return self.ask(path, timeout=timeout)[0]
        except OSError:
            return None

    def failing(self, path: str = "/readyz") -> set[str]:
        """The checks that are not as they should be; the status says the same."""
        status, _, body = self.ask(path)
        document: dict[str, Any] = json.loads(body)
        found = {name for name, check in document["checks"].items() if not check["ok"]}
        assert (status, document["status"]) == ((503, "failing") if found else (200, "ok"))
        return found

    def until_ready(self, within: float = 30) -> None:
        """Waits for /readyz to be 200."""
        eventually(lambda: self.status("/readyz") == 200, "the worker is ready", within)

    def figures(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels, as a reader would write them."""
        status, headers, body = self.ask("/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=")
        return {
            sample.name + _labels(sample.labels): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def figure(self, name: str, **labels: str) -> float:
        """One sample; 0 where it is not there."""
        return self.figures().get(name + _labels(labels), 0)

    def total(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(value for sample, value in self.figures().items() if re.split("{", sample)[0] == name)


def _labels(labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{{{inner}}}" if inner else ""
