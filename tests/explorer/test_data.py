"""What the explorer says of tracks, against the plain definition of it, and how it is packed."""

import base64
import gzip
import io
import json
import re

import numpy as np
import pytest
import soundfile
from pyarrow import parquet

import vae_jax
from tests.explorer import runs
from vae_jax.collection import neighbours
from vae_jax.errors import UserError
from vae_jax.explorer import atlas, data, measures, packing, page, previews
from vae_jax.storage import files


def unpacked(text: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Read what `packing.encode` wrote."""
    content = gzip.decompress(base64.b64decode(text))
    size = int.from_bytes(content[:4], "little")
    start, arrays = 4 + size, {}
    described = json.loads(content[4:start])
    for name, about in described["arrays"].items():
        width, shape = np.dtype(about["type"]).itemsize, about["shape"]
        number = int(np.prod(shape))
        planes = np.frombuffer(content, np.uint8, width * number, start).reshape(width, number)
        start += width * number
        arrays[name] = planes.T.copy().view(f"<u{width}").reshape(shape)
    assert start == len(content)
    return described, arrays


@pytest.fixture
def run(tmp_path):
    columns = {
        "title": [f"Song {i}" for i in range(40)],
        "year": [str(1970 + i) if i else "" for i in range(40)],
        "genre": ["b", "a"] * 20,
    }
    return vae_jax.load(runs.write(tmp_path, [-1, 0, 1, 2] * 10, columns))


def test_neighbours_are_exact_and_never_the_track_itself(run):
    rows, distances = neighbours.nearest_others(run.latents, 7)
    exact = np.linalg.norm(run.latents[:, None].astype(float) - run.latents[None], axis=2)
    np.fill_diagonal(exact, np.inf)
    np.testing.assert_array_equal(rows, np.argsort(exact, axis=1)[:, :7])
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :7], rtol=1e-6)
    same = np.zeros((4, 2))
    assert all(i not in row for i, row in enumerate(neighbours.nearest_others(same, 2)[0]))
    assert neighbours.nearest_others(same[:1], 5)[0].shape == (1, 0)


def test_a_map_is_faithful_where_true_neighbours_are_near_on_it():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 2))
    rows, _ = neighbours.nearest_others(points, 10)
    assert measures.faithfulness(rows, points).min() == 1
    shuffled = measures.faithfulness(rows, rng.permutation(points))
    assert shuffled.mean() == pytest.approx(20 / 199, abs=0.04)
    assert measures.faithfulness(np.zeros((1, 0), int), points[:1]) == 1


def test_tracks_between_clusters_are_those_nearly_as_near_to_another_mean():
    points = np.array([[0.0], [2], [10], [12], [5], [99]])
    found = measures.between(points, np.array([0, 0, 1, 1, 0, -1]), [0, 1, -1])
    centers = np.array([7 / 3, 11])
    own = np.abs(points[:, 0] - centers[[0, 0, 1, 1, 0, 0]])
    other = np.abs(points[:, 0] - centers[[1, 1, 0, 0, 1, 1]])
    np.testing.assert_allclose(found.share[:5], (own / (own + other))[:5])
    assert found.second.tolist() == [1, 1, 0, 0, 1, -1]
    assert found.share[5] == 0
    assert found.typical == [[1, 0, 4], [2, 3], []]


def test_unusual_tracks_lie_where_few_others_do():
    points = np.array([[0.0], [0.1], [0.2], [0.3], [9]])
    _, distances = neighbours.nearest_others(points, 4)
    found = measures.unusual(distances)
    assert found.argmax() == 4
    assert found.max() == 0.8


def test_packed_data_are_those_that_went_in_and_the_same_each_time(run, tmp_path):
    collected = data.collect(run, tmp_path)
    packed = packing.encode(collected.text, collected.arrays)
    assert packed == packing.encode(collected.text, collected.arrays)
    text, arrays = unpacked(packed)
    assert text["ids"] == run.ids
    for name, array in collected.arrays.items():
        np.testing.assert_array_equal(arrays[name], array)
    year = next(column for column in text["columns"] if column["name"] == "year")
    steps = arrays[year["steps"]]
    values = year["low"] + steps / 65534 * (year["high"] - year["low"])
    assert steps[0] == packing.MISSING
    np.testing.assert_allclose(values[1:], 1970 + np.arange(1, 40), atol=1e-3)
    genre = next(column for column in text["columns"] if column["name"] == "genre")
    assert [genre["values"][code] for code in arrays[genre["codes"]]] == ["b", "a"] * 20
    cluster = text["columns"][0]
    assert cluster["values"] == ["0", "1", "2", "-1"]  # noise comes last
    second = arrays[text["clusters"]["second"]].astype(int) - 1
    assert set(second[run.clusters == -1]) == {-1}
    assert set(second[run.clusters >= 0]) <= {0, 1, 2}


def test_a_track_takes_few_bytes_beside_its_text_and_neighbours(run, tmp_path):
    collected = data.collect(run, tmp_path)
    about = collected.text["neighbours"]
    near = {about[name] for name in ("order", "steps", "ends", "farther")}
    others = [array for name, array in collected.arrays.items() if name not in near]
    assert sum(array.nbytes for array in others) <= 60 * len(run.ids)


def test_embedding_atlas_finds_places_neighbours_and_columns(run, tmp_path):
    assert atlas.write(tmp_path / "run.parquet", run) == 40
    table = parquet.read_table(tmp_path / "run.parquet").to_pylist()
    assert [row["id"] for row in table] == run.ids
    near = table[3]["neighbors"]
    expected = run.neighbours(run.ids[3], k=25)
    assert [run.ids[row] for row in near["ids"]] == [id_ for id_, _ in expected]
    np.testing.assert_allclose(near["distances"], [d for _, d in expected], rtol=1e-5)
    assert table[3]["genre"] == "a"
    assert isinstance(table[3]["x"], float)


def test_previews_come_from_the_middle_and_their_room_is_bounded(run, tmp_path):
    (tmp_path / "music" / "1.wav").write_text("no audio")
    found = previews.make(run, run.ids[:2], 1.0)
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(found[0])))
    assert len(sound) / rate == pytest.approx(1, abs=0.05)
    assert 0.05 < np.abs(sound).max() < 0.2
    assert len(found[0]) < 1.3 * previews.BYTES_PER_SECOND
    assert found[1] == ""
    with pytest.raises(UserError, match="60 s or less for 2 tracks"):
        previews.make(run, run.ids[:2], 100)
    with pytest.raises(UserError, match=r"about 120 MB: .* 10 s or less"):
        previews.make(run, ["x"] * 1667, 12)


def test_neighbours_are_packed_as_steps_and_unpacked_the_same(run, tmp_path):
    collected = data.collect(run, tmp_path)
    arrays, about = collected.arrays, collected.text["neighbours"]
    steps = arrays[about["steps"]].astype(int)
    position = np.argsort(arrays[about["order"]])
    moved = position[:, None] + np.where(steps % 2, -(steps + 1) // 2, steps // 2)
    rows, distances = neighbours.nearest_others(run.latents, 25)
    np.testing.assert_array_equal(arrays[about["order"]][moved], rows)
    parts = np.cumsum(arrays[about["farther"]], axis=0, dtype=int).T / 255
    first, last = (arrays[about["ends"]] / 65534 * about["high"]).T[:, :, None]
    np.testing.assert_allclose(first * (last / first) ** parts, distances, rtol=6e-3)


def test_descriptors_reasons_and_duplicates_are_shown_where_the_run_has_them(run, tmp_path):
    clusters = data.collect(run, tmp_path).text["clusters"]
    assert (clusters["reasons"], clusters["suggested"]) == ([[]] * 4, [""] * 4)
    described = [
        {"id": id_, "loudness_db": f"{-i}", "key": "AC"[i % 2]} for i, id_ in enumerate(run.ids)
    ]
    files.write_csv(run.outdir / "descriptors.csv", list(described[0]), described[1:])
    loud = {"cluster": 1, "name": "loud", "reasons": ["It is loud."], "edge": [run.ids[2], "gone"]}
    files.write_json(run.outdir / "clusters.json", {"methods": {"vae": [loud, {"cluster": 7}]}})
    rows = [
        {"group": number, "id": id_, "kind": kind, "similarity": 1}
        for number, id_, kind in [
            (1, run.ids[0], "recording"),
            (1, run.ids[9], "recording"),
            (2, run.ids[5], "file"),
            (2, "gone", "file"),
        ]
    ]
    files.write_csv(run.outdir / "duplicates.csv", ("group", "id", "kind", "similarity"), rows)
    collected = data.collect(run, tmp_path)
    columns = {column["name"]: column for column in collected.text["columns"]}
    assert (columns["loudness (dB)"]["low"], columns["loudness (dB)"]["high"]) == (-39, -1)
    assert collected.arrays[columns["loudness (dB)"]["steps"]][0] == packing.MISSING
    assert columns["key"]["values"] == ["A", "C", ""]
    clusters = collected.text["clusters"]
    assert clusters["reasons"] == [[], ["It is loud."], [], []]
    assert clusters["edge"] == [[], [2], [], []]
    assert clusters["suggested"] == ["", "loud", "", ""]
    assert collected.text["same"] == [{"kind": "the same recording", "rows": [0, 9]}]


def test_columns_that_are_called_alike_stay_apart(tmp_path):
    columns = {"cluster": ["a", "b"] * 10, "unusual": [str(i) for i in range(20)]}
    run = vae_jax.load(runs.write(tmp_path, [0, 1] * 10, columns))
    collected = data.collect(run, tmp_path)
    shown = collected.text["columns"]
    names = [column["name"] for column in shown]
    assert names[:3] == ["cluster", "cluster (2)", "unusual"]
    assert "unusual (2)" in names
    assert collected.arrays[shown[0]["codes"]].tolist() == [0, 1] * 10
    assert shown[1]["values"] == ["a", "b"]


def test_audio_is_linked_from_the_pages_folder(run, tmp_path):
    link = data._link(tmp_path / "a b" / "javascript:x?#é.mp3", tmp_path / "c")
    assert link == "./../a%20b/javascript%3Ax%3F%23%C3%A9.mp3"
    audio = data.collect(run, run.outdir).text["audio"]
    assert audio[1] == "./../music/1.wav"


def test_a_map_of_other_tracks_is_refused(run, tmp_path):
    maps = run.outdir / "latent_visualization" / "vae_umap.csv"
    maps.write_text(maps.read_text() + "unknown,0,0\n")
    with pytest.raises(UserError, match="of other tracks"):
        data.collect(run, tmp_path)


def test_where_no_map_was_drawn_there_is_a_pca_of_the_latents(run, tmp_path):
    for path in (run.outdir / "latent_visualization").iterdir():
        path.unlink()
    maps = data.collect(run, tmp_path).text["maps"]
    assert [one["title"] for one in maps] == ["VAE · PCA"]


def test_of_many_tracks_a_sample_is_shown(run, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "LIMIT", 25)
    collected = data.collect(run, tmp_path)
    assert len(collected.text["ids"]) == 25
    assert collected.text["total"] == 40
    assert collected.text["ids"] == [run.ids[row] for row in collected.rows]


def test_the_policy_lets_only_the_pages_own_script_and_style_run(run, tmp_path):
    rendered = page.render(data.collect(run, tmp_path))
    policy = re.search(r'Security-Policy" content="([^"]*)"', rendered)[1]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    (script,) = re.findall(r"<script>(.*?)</script>", rendered, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", rendered, re.DOTALL)
    assert page.policy(script, style) == policy
    assert "http:" not in script.replace("http://www.w3.org/2000/svg", "")


def test_modules_are_bundled_after_those_that_they_import():
    script = page.bundle("main")
    defined = re.findall(r"^const \$(\w+) =", script, re.MULTILINE)
    assert defined[-1] == "main"
    assert len(defined) == len({*defined})
    for name in defined:
        body = script.split(f"const ${name} =")[1].split("\n})();\n")[0]
        for imported in re.findall(r"= \$(\w+);", body):
            assert defined.index(imported) < defined.index(name)
    assert "import " not in re.sub(r"^\s*//.*", "", script, flags=re.MULTILINE)
