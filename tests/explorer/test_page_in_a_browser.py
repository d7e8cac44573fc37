"""The explorer's page in Chromium, from a file, as people open it."""

import csv
import io
import shutil
from pathlib import Path

import m3u8
import matplotlib.image
import numpy as np
import pytest

import vae_jax
from tests.explorer import hostile, runs
from tests.explorer.browser import download, picture, rows_of, started, until
from vae_jax.storage import files

ARTISTS = ("Alba", "Bento", "Cora", "Dürer", "Édith", "Fela", "Gal")
GENRES = ("rock", "jazz", "folk")


@pytest.fixture(scope="module")
def browser():
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A run of sixty tracks in three clusters, whose page is written."""
    total = 60
    columns = {
        "title": [f"Song {i:02d}" for i in range(total)],
        "artist": [ARTISTS[i % 7] for i in range(total)],
        "genre": [GENRES[i % 3] for i in range(total)],
        "year": [str(1960 + i) if i % 5 else "" for i in range(total)],
    }
    folder = tmp_path_factory.mktemp("my music #1 ü")
    path = runs.write(folder, [i % 3 for i in range(total)], columns)
    vae_jax.load(path).explore()
    return path


@pytest.fixture
def run(results):
    return vae_jax.load(results)


def places(page, results: Path, name: str = "vae_umap") -> np.ndarray:
    """Return where each track is on the screen, while the whole map is shown."""
    table = files.read_csv(results / "latent_visualization" / f"{name}.csv")
    at = np.array([(float(row["x"]), float(row["y"])) for row in table])
    low, high = at.min(axis=0), at.max(axis=0)
    at = (at - (low + high) / 2) / (high - low).max()
    left, top, width, height, legend, tools = page.evaluate(
        """() => {
          const map = document.getElementById("map");
          const { left, top, width, height } = map.getBoundingClientRect();
          const wide = (id) => document.getElementById(id).offsetWidth;
          return [left, top, width, height, wide("colors"), wide("tools")];
        }"""
    )
    side = min(width - legend - tools, height) - 56
    middle = np.array([left + (legend + width - tools) / 2, top + height / 2])
    return middle + side * at * (1, -1)


def drag(page, points, tool: str) -> None:
    """Draw a path on the map with a tool."""
    page.click(f"#tool-{tool}")
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=3)
    page.mouse.up()
    page.click("#tool-move")


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_page_opens_from_a_file_and_is_light_dark_and_narrow(browser, results):
    for name, options in {
        "light": {"color_scheme": "light"},
        "dark": {"color_scheme": "dark"},
        "phone": {"width": 390, "height": 780},
    }.items():
        with browser.open(results / "map.html", **options) as page:
            assert page.text_content("#fitting") == "60 tracks"
            assert page.text_content("#run") == "results"
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= options.get("width", 1280)
            assert len(picture(page, name)) > 20_000


def test_the_picture_has_all_points_in_the_colours_of_their_clusters(browser, results, run):
    with browser.open(results / "map.html") as page:
        with page.expect_download() as waiting:
            page.click("#save-png")
        image = matplotlib.image.imread(waiting.value.path(), format="png")
        box = page.locator("#map").bounding_box()
        at = np.rint(places(page, results) - (box["x"], box["y"])).astype(int)
    found = image[at[:, 1], at[:, 0], :3]
    for cluster, color in {0: (0, 114, 178), 2: (0, 158, 115)}.items():
        near = np.abs(255 * found[run.clusters == cluster] - color).max(axis=1) < 40
        assert near.mean() > 0.6  # the rest is under another point, or under a name


def test_points_look_the_same_with_and_without_a_graphics_card(browser, tmp_path):
    genres = {"genre": [GENRES[i % 3] for i in range(120)]}
    results = runs.write(tmp_path, [i % 40 for i in range(120)], genres)  # in all five shapes
    vae_jax.load(results).explore()
    pretend = """const ask = WebGL2RenderingContext.prototype.getParameter;
    WebGL2RenderingContext.prototype.getParameter = function (name) {
      return name === 37446 ? "a card" : ask.call(this, name);
    };"""
    looks, kinds = [], []
    for script in ("", pretend):
        with browser.open(results / "map.html", script=script) as page:
            page.fill("#search", "rock")
            page.click("#tab-track")
            image = page.locator("#map").screenshot()
            looks.append(matplotlib.image.imread(io.BytesIO(image), format="png")[..., :3])
            has_card = "!document.getElementById('points').getContext('2d')"
            kinds.append(page.evaluate(has_card))
    assert kinds == [False, True]
    different = np.abs(looks[0] - looks[1]).max(axis=2)
    assert (different > 0.3).sum() < 60  # of the pixels at edges of points
    assert (looks[0].std(axis=2) > 0.1).sum() > 1000


def test_a_click_plays_the_track_from_the_middle_and_lists_its_true_neighbours(
    browser, results, run
):
    with browser.open(results / "map.html") as page:
        row = 7
        page.mouse.click(*places(page, results)[row])
        until(page, "document.getElementById('now').textContent.includes('Song')")
        title = page.text_content("#track h2")
        row = int(title.split()[1])
        until(page, "parseFloat(document.getElementById('seek').value) > 0.5")
        before = float(page.input_value("#seek"))
        until(page, f"parseFloat(document.getElementById('seek').value) > {before}")
        assert page.text_content("#said-player") == ""
        expected = run.neighbours(run.ids[row], k=25)
        assert [run.ids[i] for i in rows_of(page, "#neighbours")] == [id_ for id_, _ in expected]
        shown = page.locator("#neighbours .note").all_text_contents()
        np.testing.assert_allclose(
            [float(x) for x in shown], [distance for _, distance in expected], rtol=1e-2
        )
        page.click("#track input[type=checkbox]")
        other = {i for i in rows_of(page, "#neighbours") if run.clusters[i] != run.clusters[row]}
        assert other == {*rows_of(page, "#neighbours")}


def test_a_file_that_is_gone_is_named(browser, tmp_path):
    results = runs.write(tmp_path, [0, 1] * 5, {"title": [f"T{i}" for i in range(10)]})
    vae_jax.load(results).explore()
    (tmp_path / "music" / "1.wav").unlink()
    with browser.open(results / "map.html", complaints=("ERR_FILE_NOT_FOUND",)) as page:
        page.click("#tab-list")
        page.click("#rows-list li[data-row='1'] .plain")
        until(page, "document.getElementById('said-player').textContent.includes('Cannot')")
        assert "1.wav: the file is not where it was" in page.text_content("#said-player")


def test_lasso_and_rectangle_select_what_they_enclose(browser, results):
    with browser.open(results / "map.html") as page:
        at = places(page, results)
        middle = np.median(at, axis=0)
        box = page.locator("#map").bounding_box()
        right, bottom = box["x"] + box["width"] - 60, box["y"] + box["height"] - 20
        drag(page, [middle, (right, middle[1]), (right, bottom), (middle[0], bottom)], "lasso")
        inside = (at > middle).all(axis=1) & (at < (right, bottom)).all(axis=1)
        assert page.text_content("#list-title") == f"{inside.sum()} tracks selected"
        assert set(rows_of(page, "#rows-list")) <= {*np.flatnonzero(inside).tolist()}
        drag(page, [middle, (right, bottom)], "box")
        assert page.text_content("#list-title") == f"{inside.sum()} tracks selected"
        page.click("#select-none")
        assert page.text_content("#list-title") == "All that fit: 60 tracks"


def test_search_filters_and_isolation_combine(browser, results, run):
    with browser.open(results / "map.html") as page:
        page.fill("#search", "ÉDITH")
        assert page.text_content("#fitting") == "8 of 60 tracks"
        page.click("#filter summary")
        page.select_option("#filter-column", label="genre")
        page.select_option("#filter-sign", "not")
        page.fill("#filter-value", "jazz")
        page.click("#filter-form button")
        fits = {i for i in range(60) if i % 7 == 4 and i % 3 != 1}
        assert page.text_content("#fitting") == f"{len(fits)} of 60 tracks"
        page.select_option("#filter-column", label="year")
        page.fill("#filter-value", "1980")
        page.click("#filter-form button")
        fits = {i for i in fits if i % 5 and 1960 + i >= 1980}
        assert page.text_content("#fitting") == f"{len(fits)} of 60 tracks"
        page.click("#filter summary")
        page.click("#legend button >> nth=2")
        fits = {i for i in fits if run.clusters[i] == 2}
        assert 0 < len(fits) < 4
        assert set(rows_of(page, "#rows-list")) == fits
        until(page, "decodeURIComponent(location.hash).includes('in')")
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.text_content("#fitting") == f"{len(fits)} of 60 tracks"
        for _ in range(3):
            page.click("#chips button >> nth=0")
        page.fill("#search", "")
        assert page.text_content("#fitting") == "60 tracks"


def test_a_selection_is_taken_away_as_playlist_table_and_ids(browser, results, run):
    with browser.open(
        results / "map.html", permissions=["clipboard-write", "clipboard-read"]
    ) as page:
        page.fill("#search", "edith")
        playlist = m3u8.loads(download(page, "#save-m3u"))
        expected = [i for i in range(60) if i % 7 == 4]
        found = [Path(segment.uri) for segment in playlist.segments]
        assert found == [Path(run.manifest[i].audio_path).resolve() for i in expected]
        assert playlist.segments[0].title == "Édith - Song 04"
        table = parsed(download(page, "#save-csv"))
        assert [row["id"] for row in table] == [run.ids[i] for i in expected]
        assert table[0] | {"genre": "jazz", "year": "1964", "cluster": "1"} == table[0]
        page.click("#copy-ids")
        until(page, "document.getElementById('said').textContent.includes('copied')")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.split("\n") == [run.ids[i] for i in expected]


def test_names_and_marks_stay_and_the_run_reads_the_names(browser, results, run):
    with browser.open(results / "map.html") as page:
        page.click("#tab-clusters")
        page.fill("[aria-label='name of cluster 1']", "=slow, and sad")
        page.keyboard.press("Tab")
        assert "=slow, and sad" in page.text_content("#legend")
        page.click("#cluster-list .link >> nth=0")
        page.click("#track .actions button:has-text('Mark')")
        until(page, "location.hash.includes('track')")
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert "=slow, and sad" in page.text_content("#legend")
        page.click("#tab-track")
        assert (
            page.get_attribute("#track .actions button:has-text('Mark')", "aria-pressed") == "true"
        )
        page.click("#tab-clusters")
        names = results / "cluster_names.csv"
        names.write_text(download(page, "#save-names"))
    assert files.read_csv(names) == [{"id": "1", "name": "=slow, and sad"}]
    other = run.explore(results / "named.html").path
    names.unlink()
    with browser.open(other, color_scheme="dark") as page:
        assert "=slow, and sad" in page.text_content("#legend")


def test_what_is_known_of_clusters_and_duplicates_is_listed(browser, tmp_path):
    total = 40
    titles = {"title": [f"Song {i}" for i in range(total)]}
    results = runs.write(tmp_path, [i % 2 for i in range(total)], titles)
    ids = vae_jax.load(results).ids
    described = [{"id": id_, "tempo_bpm": f"{60 + i}"} for i, id_ in enumerate(ids)]
    files.write_csv(results / "descriptors.csv", ("id", "tempo_bpm"), described)
    loud = {"cluster": 1, "name": "loud", "reasons": ["Louder: -9 dB, others -20."]}
    loud |= {"edge": [ids[3]]}
    files.write_json(results / "clusters.json", {"methods": {"vae": [loud]}})
    same = [{"group": 1, "id": ids[i], "kind": "recording", "similarity": 1} for i in (4, 8)]
    files.write_csv(results / "duplicates.csv", list(same[0]), same)
    config = files.read_json(results / "config.json")
    config["feature"]["name"] = "musicnn"
    files.write_json(results / "config.json", config)
    page = vae_jax.load(results).explore().path
    with browser.open(page) as page:
        assert page.text_content("#elsewhere") == "features trained elsewhere with tags"
        assert "1 loud" in page.text_content("#legend")
        page.click("#tab-clusters")
        panel = page.text_content("#clusters")
        assert "Louder: -9 dB, others -20." in panel
        assert rows_of(page, "#same-list") == [4, 8]
        picture(page, "clusters")
        page.click(".typical >> nth=-1 >> button")
        assert page.text_content("#track h2") == "Song 3"
        page.select_option("#column", label="tempo (bpm)")
        assert page.text_content("#legend .ends") == "6099"
        page.click("#tab-clusters")
        page.click("#same-list li[data-row='8'] .track")
        assert "the same recording" in page.text_content("#track")
        picture(page, "track")


def test_all_of_it_goes_by_keyboard(browser, results, run):
    with browser.open(results / "map.html") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.locator("#surface").focus()
        page.keyboard.press("ArrowRight")
        first = run.ids[int(page.text_content("#track h2").split()[1])]
        page.keyboard.press("ArrowRight")
        second = run.ids[int(page.text_content("#track h2").split()[1])]
        assert second == run.neighbours(first, k=1)[0][0]
        page.keyboard.press("ArrowLeft")
        assert run.ids[int(page.text_content("#track h2").split()[1])] == first
        page.keyboard.press("Enter")
        until(page, "parseFloat(document.getElementById('seek').value) > 0")
        page.keyboard.press("Space")
        until(page, "document.getElementById('play').getAttribute('aria-label') === 'play'")
        page.keyboard.press("+")
        page.keyboard.press("v")
        assert "selected" in page.text_content("#list-title")
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.type("song 11")
        assert page.text_content("#fitting") == "1 of 60 tracks"
        page.keyboard.press("Escape")
        page.keyboard.press("c")
        assert page.input_value("#maps") == "1"
        assert page.evaluate("document.getElementById('surface').matches(':focus-visible')")
        page.keyboard.press("?")
        assert page.evaluate("document.getElementById('help').open")


@pytest.mark.slow
def test_every_control_has_a_name_and_all_text_stands_out(browser, results):
    script = """() => {
      const parts = (color) => {
        const c = document.createElement("canvas").getContext("2d");
        c.fillStyle = color; c.fillRect(0, 0, 1, 1);
        return [...c.getImageData(0, 0, 1, 1).data];
      };
      const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const behind = (node) => {
        for (; node; node = node.parentElement) {
          const color = parts(getComputedStyle(node).backgroundColor);
          if (color[3] === 255) return color;
        }
        return [255, 255, 255, 255];
      };
      const named = (node) => node.labels?.length || node.getAttribute("aria-label") ||
        node.getAttribute("aria-labelledby") || node.textContent.trim();
      const all = [...document.querySelectorAll("body *")];
      const seen = all.filter((node) => node.checkVisibility());
      const controls = seen
        .filter((node) => node.matches("button, input, select, meter, [tabindex]"))
        .filter((node) => !node.matches("[aria-hidden]"));
      const hasText = (node) =>
        [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
      const faint = seen
        .filter((node) => hasText(node) || node.placeholder)
        .filter((node) => !node.matches("option"))
        .filter((node) => {
          const part = node.placeholder ? "::placeholder" : undefined;
          const color = getComputedStyle(node, part).color;
          const [a, b] = [light(parts(color)), light(behind(node))];
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
        });
      return [
        controls.filter((node) => !named(node)).map((node) => node.outerHTML.slice(0, 200)),
        faint.map((node) => node.outerHTML.slice(0, 200)),
      ];
    }"""
    for scheme in ("light", "dark"):
        with browser.open(results / "map.html", color_scheme=scheme) as page:
            page.locator("#surface").focus()
            page.keyboard.press("ArrowRight")
            for tab in ("track", "list", "clusters"):
                page.click(f"#tab-{tab}")
                page.mouse.move(5, 5)
                assert page.evaluate(script) == [[], []], (scheme, tab)


def test_the_address_holds_the_view(browser, results):
    with browser.open(results / "map.html") as page:
        page.select_option("#maps", label="PCA · UMAP")
        page.select_option("#column", label="genre")
        page.click("#zoom-in")
        until(page, "location.hash.includes('view') && location.hash.includes('pca_umap')")
        fragment = page.evaluate("location.hash")
    with browser.open(results / "map.html", fragment) as page:
        assert page.input_value("#maps") == "1"
        assert "folk" in page.text_content("#legend")
        assert page.is_visible("#minimap")
    nonsense = "#map=x&color=y&track=z&view=a,b,c&filters=[1,{}]"
    with browser.open(results / "map.html", nonsense) as page:
        assert page.text_content("#fitting") == "60 tracks"


@pytest.mark.slow
def test_hostile_strings_are_text_wherever_they_stand(browser, tmp_path):
    strings = hostile.strings()
    assert len(strings) > 200
    titles = [text if text.strip() else f"blank {i}" for i, text in enumerate(strings)]
    ids = [
        f"{i} {''.join(c for c in text if c.isprintable())}"[:900].strip()
        for i, text in enumerate(strings)
    ]
    columns = {
        "title": titles,
        "artist": strings[::-1],
        "mood": strings,
        "<img src=x onerror=window.ran=1>": [strings[i % 40] for i in range(len(strings))],
    }
    results = runs.write(tmp_path, [i % 5 for i in range(len(strings))], columns, ids)
    rows = [{"id": i, "name": hostile.MARKUP[i]} for i in range(5)]
    files.write_csv(results / "cluster_names.csv", ("id", "name"), rows)
    run = vae_jax.load(results)
    run.explore()
    with browser.open(results / "map.html") as page:
        count = page.evaluate(
            "document.querySelectorAll('script, style, img, iframe, link').length"
        )
        assert count == 3  # the script, the style and the icon
        for i in range(len(page.query_selector_all("#column option"))):
            page.select_option("#column", index=i)
        page.click("#tab-list")
        height = page.evaluate("document.getElementById('rows').scrollHeight")
        for top in range(0, height, 500):
            page.evaluate(f"document.getElementById('rows').scrollTop = {top}")
            page.wait_for_timeout(10)
            tall = page.evaluate(
                "[...document.querySelectorAll('#rows-list li')].map(x => x.offsetHeight)"
            )
            assert set(tall) == {52}, top
        for row in range(0, len(strings), 9):
            page.evaluate("document.getElementById('rows').scrollTop = 0")
            page.fill("#search", ids[row][:40])
            page.locator("#rows-list .track").first.click()
        page.fill("#search", "")
        for at in places(page, results)[::9]:
            page.mouse.move(*at)
            until(page, "!document.getElementById('tip').hidden")
            tip, map_ = (page.locator(name).bounding_box() for name in ("#tip", "#map"))
            assert tip["x"] + tip["width"] <= map_["x"] + map_["width"]
            assert tip["height"] < 200
        page.click("#tab-clusters")
        legend, choice = (page.locator(name).bounding_box() for name in ("#colors", "#column"))
        assert choice["x"] + choice["width"] < legend["x"] + legend["width"]
        side, screen = page.locator("#side").bounding_box(), page.viewport_size
        assert side["x"] + side["width"] == screen["width"]
        assert page.evaluate("document.documentElement.scrollHeight") == screen["height"]
        for name in ("track", "list", "clusters"):
            wide = page.evaluate(f"document.getElementById('{name}').scrollWidth")
            assert wide <= side["width"]
        picture(page, "hostile")
        page.click("#tab-list")
        table = parsed(download(page, "#save-csv"))
        assert page.evaluate("window.ran") is None
        assert (
            page.evaluate("document.querySelectorAll('script, style, img, iframe, link').length")
            == 3
        )
    for row in table:
        for cell in row.values():
            assert not cell.startswith(("=", "\t=", "＝", "@SUM", "+cmd", "-2+3"))
    back = {files.unescape(row["id"]): files.unescape(row["mood"]) for row in table}
    assert back == {id_: run.manifest[run.rows[id_]].columns["mood"] for id_ in run.ids}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "clusters", "audio"),
    [
        ("silent", [0, 1, 2] * 8, False),
        ("one cluster", [0] * 30, True),
        ("noise only", [-1] * 30, True),
        ("one track", [0], True),
        ("five tracks", [0, 1, 0, 1, -1], True),
        ("200 clusters", [i % 200 for i in range(1200)], True),
    ],
)
def test_odd_runs_look_right(browser, tmp_path, name, clusters, audio):
    labels = [f"label {i % 300}" for i in range(len(clusters))]
    results = runs.write(tmp_path, clusters, {"label": labels}, audio=audio)
    vae_jax.load(results).explore()
    with browser.open(results / "map.html") as page:
        for i in range(len(page.query_selector_all("#column option"))):
            page.select_option("#column", index=i)
        page.select_option("#column", index=0)
        for tab in ("list", "clusters", "track"):
            page.click(f"#tab-{tab}")
        page.locator("#surface").focus()
        page.keyboard.press("ArrowRight")
        assert page.is_visible("#player") == audio
        assert page.locator("#track h2").is_visible()
        groups = page.locator("#legend .group").all_text_contents()
        assert len(groups) == len({*clusters})
        assert len(rows_of(page, "#neighbours")) == min(25, len(clusters) - 1)
        picture(page, name.replace(" ", "-"))


def test_previews_inside_the_page_play_where_there_are_no_files(browser, tmp_path):
    results = runs.write(tmp_path / "old", [0, 1] * 4)
    page = tmp_path / "sent" / "page.html"
    vae_jax.load(results).explore(page, embed_audio=1.5)
    shutil.rmtree(tmp_path / "old")
    with browser.open(page) as page:
        page.locator("#surface").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        until(page, "parseFloat(document.getElementById('seek').value) > 0.2")


@pytest.mark.slow
def test_a_page_shows_itself_in_a_notebook(browser, results, tmp_path):
    html = vae_jax.load(results).explore(tmp_path / "a.html")._repr_html_()
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><html data-ready><body>{html}")
    with browser.open(notebook) as page:
        frame = page.frame_locator("iframe")
        frame.locator("#fitting").filter(has_text="60 tracks").wait_for()
        frame.locator("#tab-list").click()
        assert frame.locator("#rows-list li").count() > 3
