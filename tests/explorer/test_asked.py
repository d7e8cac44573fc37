"""A page of too many tracks to hold all that is known of them, and what it asks its server."""

import contextlib
import csv
import io
import json
import threading
import time
from urllib.parse import quote

import numpy as np
import pytest

import vae_jax
from tests.explorer import runs
from tests.explorer.browser import download, picture, rows_of, started, until
from tests.explorer.test_server import ask
from vae_jax.explorer import data, maps, measures, server
from vae_jax.explorer.asked import Answers

uvicorn = pytest.importorskip("uvicorn")
TOTAL = 300


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that has more tracks than a page holds."""
    monkeypatch.setattr(data, "LIMIT", 100)
    columns = {
        "title": [f"Söng {i}" for i in range(TOTAL)],
        "artist": [f"Artist {i}" for i in range(TOTAL)],
        "genre": ["Rock", "Jazz", "Folk"] * (TOTAL // 3),
        "year": [str(1900 + i % 90) for i in range(TOTAL)],
    }
    return vae_jax.load(runs.write(tmp_path, [i % 3 for i in range(TOTAL)], columns))


@contextlib.contextmanager
def serving(application):
    """Yield the address at which an application answers."""
    config = uvicorn.Config(application, port=0, log_level="error")
    one = uvicorn.Server(config)
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not one.started:
        assert time.monotonic() < end
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{one.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        one.should_exit = True
        thread.join(60)


def test_a_page_that_asks_holds_no_text_of_single_tracks(run, tmp_path):
    page = data.collect(run, tmp_path, asks=True)
    content = json.dumps(page.text)
    assert page.text["count"] == TOTAL
    assert "Song 7" not in content
    assert "Artist 7" not in content
    assert run.ids[7] not in content
    assert "Rock" in content
    assert {*page.texts} == {"title", "artist"}


def test_answers_are_exact(run, tmp_path):
    answers = Answers(run, data.collect(run, tmp_path, asks=True))
    near = answers.near(7)
    expected = run.neighbours(run.ids[7], k=25)
    assert [run.ids[row] for row in near["rows"]] == [id_ for id_, _ in expected]
    np.testing.assert_allclose(near["distances"], [far for _, far in expected], rtol=1e-6)
    whole = data.collect(run, tmp_path)  # a sample of them
    assert len(whole.rows) == 100
    nearest = np.array([answers.near(row)["rows"] for row in range(TOTAL)])
    for number, one in enumerate(maps.drawn(run)):
        share = measures.faithfulness(nearest, one.coordinates)
        assert near["faithful"][number] == round(100 * share[7])
    assert answers.about([3, -1, TOTAL]) == {
        3: {"id": run.ids[3], "cells": {"title": "Söng 3", "artist": "Artist 3"}}
    }
    found = np.unpackbits(np.frombuffer(answers.find("SONG 12 jazz"), np.uint8))[:TOTAL]
    assert np.flatnonzero(found).tolist() == [
        i for i in range(TOTAL) if i % 3 == 1 and f"song {i}artist {i}genre".count("12")
    ]


@pytest.mark.slow
def test_a_served_page_of_many_tracks_asks_for_what_it_shows(run):
    with started() as browser, serving(server.application(run, "secret")) as url:
        assert ask(f"{url}about?rows=1")[0] == 403
        assert ask(f"{url}near/1")[0] == 403
        assert ask(f"{url}find?words=a")[0] == 403
        assert ask(f"{url}data")[0] == 403
        assert ask(f"{url}near/{TOTAL}?token=secret")[0] == 404
        assert json.loads(ask(f"{url}about?rows=x,5,{quote('../1')}&token=secret")[2]).keys() == {
            *("1", "5")
        }
        with browser.open(f"{url}?token=secret") as page:
            assert page.text_content("#fitting") == f"{TOTAL} tracks"
            page.click("#tab-list")
            until(page, "document.getElementById('rows').textContent.includes('Söng 3')")
            page.click("#rows-list li[data-row='3'] .track")
            until(page, "document.querySelectorAll('#neighbours li').length === 25")
            expected = [id_ for id_, _ in run.neighbours(run.ids[3], k=25)]
            assert [run.ids[row] for row in rows_of(page, "#neighbours")] == expected
            until(page, "document.getElementById('neighbours').textContent.includes('Söng')")
            picture(page, "asking")
            page.locator("#surface").focus()
            page.keyboard.press("ArrowRight")
            second = f"Söng {run.positions[expected[0]]}"
            until(page, f"document.querySelector('#track h2').textContent === '{second}'")
            page.fill("#search", "song 12 jazz")
            wanted = [i for i in range(TOTAL) if i % 3 == 1 and "12" in str(i)]
            text = f"{len(wanted)} of {TOTAL} tracks"
            until(page, f"document.getElementById('fitting').textContent === '{text}'")
            table = list(csv.DictReader(io.StringIO(download(page, "#save-csv"))))
            assert [row["id"] for row in table] == [run.ids[i] for i in wanted]
            assert [row["title"] for row in table] == [f"Söng {i}" for i in wanted]
            page.click("#rows-list .plain >> nth=0")
            until(page, "parseFloat(document.getElementById('seek').value) > 0.5")
            until(page, "location.hash.includes('row')")
            page.reload()
            page.wait_for_selector("html[data-ready]")
            until(page, f"document.querySelector('#track h2').textContent === 'Söng {wanted[0]}'")
            until(page, f"document.getElementById('fitting').textContent === '{text}'")
