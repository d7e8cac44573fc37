"""`vae-jax explore RUN --serve`, over a real socket."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import vae_jax
from tests.explorer import runs
from tests.explorer.browser import started, until

pytest.importorskip("uvicorn")
REPOSITORY = Path(__file__).parents[2]


@contextlib.contextmanager
def serving(results: Path, *arguments: str):
    """Yield the address at which the command serves a run, and the process."""
    command = [sys.executable, "-m", "vae_jax.explore", str(results), "--serve", "--port=0"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        yield re.search(r"http://\S+", line)[0], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(url: str, **headers: str):
    """Return the status, the headers and the content of an answer."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    path = runs.write(folder, [0, 1] * 6, {"title": [f"Song {i}" for i in range(12)]})
    (folder / "music" / "2.wav").unlink()
    (folder / "music" / "3.wav").rename(folder / "music" / "page.html")
    table = (folder / "metadata.csv").read_text().replace("music/3.wav", "music/page.html")
    (folder / "metadata.csv").write_text(table)
    return path


@pytest.mark.slow
def test_only_the_page_and_the_manifests_audio_are_served(results):
    sound = (results.parent / "music" / "1.wav").read_bytes()
    with serving(results) as (url, process):
        status, headers, content = ask(url)
        assert (status, b"vae_jax explorer" in content) == (200, True)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert re.search(rb'Policy" content="([^"]*)"', content)[1].decode() in policy
        assert ask(f"{url}audio/1")[2] == sound
        status, headers, part = ask(f"{url}audio/5", Range="bytes=100-199")
        assert (status, part) == (206, sound[100:200])
        assert headers["Content-Range"] == f"bytes 100-199/{len(sound)}"
        assert ask(f"{url}audio/1", Range="bytes=999999999-")[0] == 416
        status, headers, _ = ask(f"{url}audio/3")
        assert headers["Content-Type"] == "application/octet-stream"
        assert "sandbox" in headers["Content-Security-Policy"]
        for path in (
            *(
                "audio/2",
                "audio/12",
                "audio/-1",
                "audio/x",
                "audio/1/../../metadata.csv",
                "map.html",
            ),
            *("audio/..%2f..%2fmetadata.csv", "../metadata.csv", "%2e%2e/metadata.csv", "docs"),
        ):
            assert ask(url + path)[0] == 404, path
        assert ask(url, Host="evil.example.org")[0] == 400
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.slow
def test_beyond_this_machine_an_address_needs_its_token(results):
    with serving(results, "--host=0.0.0.0") as (url, _):
        local = url.replace("0.0.0.0", "127.0.0.1")
        bare, _, token = local.partition("?")
        assert len(token) > 20
        assert ask(local)[0] == 200
        assert ask(bare)[0] == 403
        assert ask(f"{bare}audio/1")[0] == 403
        assert ask(f"{bare}audio/1?token=wrong")[0] == 403
        assert ask(f"{bare}audio/1?{token}")[0] == 200


@pytest.mark.slow
def test_a_served_page_plays_and_says_what_is_missing(results):
    with started() as browser, serving(results, "--host=0.0.0.0") as (url, _):
        url = url.replace("0.0.0.0", "127.0.0.1")
        with browser.open(url, complaints=("404",)) as page:
            page.click("#tab-list")
            page.click("#rows-list li[data-row='1'] .plain")
            until(page, "parseFloat(document.getElementById('seek').value) > 0.5")
            page.click("#tab-list")
            page.click("#rows-list li[data-row='2'] .plain")
            until(page, "document.getElementById('said-player').textContent.includes('2.wav')")


def test_without_the_extra_the_command_says_what_to_install(results, monkeypatch):
    from vae_jax.errors import UserError
    from vae_jax.explorer import server

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"pip install .*\[serve\]"):
        server.serve(vae_jax.load(results), "127.0.0.1", 0)
