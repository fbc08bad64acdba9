"""What becomes of values that are put into URLs: each stays the part of the URL where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from executors import HttpExecutor, HttpJobExecutor, PermanentError
from executors.http_client import as_written
from executors.registry import filled_config
from executors.templating import render_url

API = "https://api.example.com"


def filled(url: str, **inputs: Any) -> str:
    """The URL of an `http` run with these inputs."""
    config: HttpExecutor.Config = filled_config(HttpExecutor, {"url": url}, {"inputs": inputs})
    return config.url


@pytest.mark.parametrize(
    ("url", "value", "sent"),
    [
        (f"{API}/reports/{{inputs.x}}", "eu", f"{API}/reports/eu"),
        (f"{API}/reports/{{inputs.x}}", "../../admin?x=1#", f"{API}/reports/..%2F..%2Fadmin%3Fx%3D1%23"),
        (f"{API}/reports/{{inputs.x}}/now", "a b/ü%", f"{API}/reports/a%20b%2F%C3%BC%25/now"),
        (f"{API}/find?q={{inputs.x}}&all=1", "a&all=0#b c", f"{API}/find?q=a%26all%3D0%23b%20c&all=1"),
        (f"{API}/find?q={{inputs.x}}", "..", f"{API}/find?q=.."),
        (f"{API}/{{inputs.x}}.json", "..", f"{API}/...json"),
        (f"{API}/n/{{inputs.x}}", 7, f"{API}/n/7"),
        ("https://{inputs.x}.example.com/a", "eu-1", "https://eu-1.example.com/a"),
        ("http://127.0.0.1:{inputs.x}/a", 8080, "http://127.0.0.1:8080/a"),
        # The whole URL, or its beginning, is what the input is for.
        ("{inputs.x}", "http://h/a?b=c/../d", "http://h/a?b=c/../d"),
        ("{inputs.x}/jobs", "http://h/api", "http://h/api/jobs"),
        (f"{API}/{{{{inputs.x}}}}", "eu", f"{API}/{{inputs.x}}"),
    ],
)
def test_a_value_stays_the_part_of_the_url_where_it_stands(url: str, value: Any, sent: str) -> None:
    assert filled(url, x=value) == sent


@pytest.mark.parametrize(
    ("url", "value"),
    [
        (f"{API}/reports/{{inputs.x}}", ".."),
        (f"{API}/reports/{{inputs.x}}/delete", "."),
        (f"{API}/reports/.{{inputs.x}}", "."),
        (f"{API}/reports/{{inputs.x}}?a=1", ".."),
        ("{inputs.base}/reports/{inputs.x}", ".."),
        ("https://{inputs.x}/a", "evil.example/?"),
        ("https://{inputs.x}/a", "user@evil.example"),
        ("https://{inputs.x}.example.com/a", "evil.example#"),
        ("https://{inputs.x}.example.com/a", ""),
    ],
)
def test_a_value_that_would_lead_out_of_its_place_ends_the_run_for_good(url: str, value: str) -> None:
    with pytest.raises(PermanentError, match=r"\{inputs\.x\} stands in the (path|host) of a URL"):
        filled(url, x=value, base=API)


@pytest.mark.parametrize("job_id", ["..", "."])
def test_the_id_of_a_job_does_not_leave_its_path(job_id: str) -> None:
    with pytest.raises(PermanentError, match="would lead out of it"):
        render_url("https://jobs.example/jobs/{id}", {"id": job_id})


def test_two_values_in_one_segment_are_looked_at_together() -> None:
    with pytest.raises(PermanentError, match="would lead out of it"):
        render_url("https://jobs.example/{a}{b}/x", {"a": ".", "b": "."})


def test_the_rest_of_the_config_is_filled_as_before() -> None:
    written = {"url": f"{API}/{{inputs.x}}", "body": "{inputs.x} {inputs.n}", "headers": {"X-Region": "{inputs.x}"}}
    config = filled_config(HttpExecutor, written, {"inputs": {"x": "e/u", "n": [1]}})
    assert (config.url, config.body, config.headers) == (f"{API}/e%2Fu", "e/u [1]", {"X-Region": "e/u"})
    # An executor without such a field is none of this.
    assert filled_config(HttpJobExecutor, {"job_id": "{inputs.x}"}, {"inputs": {"x": "a/b"}}).job_id == "a/b"


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://h/a%2Fb?x=%2F%3A%27&y=1", "http://h/a%2Fb?x=%2F%3A%27&y=1"),
        ("http://h", "http://h/"),
        ("http://h?x=1", "http://h/?x=1"),
        ("http://h/ü b?c=d e", "http://h/%C3%BC%20b?c=d%20e"),
        ("http://h/100%?a=5%&b=%41", "http://h/100%25?a=5%25&b=%41"),
        ("http://bücher.example/a", "http://xn--bcher-kva.example/a"),
        ("http://u:p%40w@h:8080/a+b", "http://u:p%40w@h:8080/a+b"),
        ("http://[::1]:80/a", "http://[::1]/a"),
    ],
)
def test_what_is_encoded_is_sent_so_and_the_rest_is_encoded(url: str, sent: str) -> None:
    assert str(as_written(url)) == sent
