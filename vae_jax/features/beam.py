"""Writes shards as an Apache Beam pipeline, for `features.extract` (extra `beam`).

The elements are shards: workers run the very same `write_shard` as the local pool. Launcher and
workers share a folder, from which each worker gets its job:

- if `config.data_dir` is a URL, the records' own folder, into which workers put finished shards;
- with `--temp_location=URL` among the options (gs://, s3://, az://), a folder there, from which the
  launcher fetches them. A shard that was finished when the launcher died is not written again;
- else the records directory, which all workers see at the launcher's path, like the audio.

`--beam_options` are the pipeline's own. Without `--runner` it runs on this machine, in
`config.feature.num_workers` processes. Workers elsewhere run the image of launch/Dockerfile, built
with VARIANT=cpu, with Beam's SDK harness in it; see launch/README.md:

    --runner=DataflowRunner --project=P --region=R --temp_location=gs://BUCKET/tmp
        --sdk_container_image=IMAGE
    --runner=FlinkRunner --flink_master=HOST:8081 --environment_type=DOCKER
        --environment_config=IMAGE
    --runner=SparkRunner --spark_master_url=spark://HOST:7077 --environment_type=DOCKER
        --environment_config=IMAGE
"""

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
from absl import logging
from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from vae_jax.errors import UserError
from vae_jax.features import pool
from vae_jax.features.extractors import Extracted, Refused
from vae_jax.features.origins import WITH_LYRICS
from vae_jax.features.shards import ShardJob, is_done, write_shard
from vae_jax.records import layout, object_store
from vae_jax.storage import urls
from vae_jax.storage.urls import Location

JOBS = ".jobs"
NAMESPACE = "vae_jax"
DEFAULT_OPTIONS = (
    "--direct_running_mode=multi_processing",
    # The DirectRunner would download Prism, another runner, and prefer it to processes of its own,
    # but not for pipelines with this flag, which means nothing where there are no triggers.
    "--allow_unsafe_triggers",
    "--default_sdk_harness_log_level=ERROR",  # workers tell of every step that they take
)


class WriteShard(beam.DoFn):
    """Writes the shards whose jobs' names it gets; counts tracks, seconds of audio, failures."""

    def __init__(self, folder: Location) -> None:
        self.folder = folder
        self.tracks = Metrics.counter(NAMESPACE, "tracks")
        self.seconds = Metrics.counter(NAMESPACE, "seconds_of_audio")
        self.failures = Metrics.counter(NAMESPACE, "failures")

    def setup(self) -> None:
        """Make the folder for what goes to a URL; one per worker keeps lyrics loaded."""
        self.scratch = Path(tempfile.mkdtemp(prefix="vae_jax-"))

    def teardown(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def process(self, name: str) -> None:
        """Write one shard."""
        with urls.local(urls.join(self.folder, name)) as path:
            job = ShardJob.from_json(path.read_bytes())
        if job.store:
            job = replace(job, directory=self.scratch)
            if job.feature["name"] in WITH_LYRICS:
                lyrics = urls.join(self.folder, layout.LYRICS)
                urls.copy(lyrics, self.scratch / layout.LYRICS)
        seconds = 0.0

        def count(result: Extracted | Refused) -> None:
            nonlocal seconds
            self.tracks.inc()
            if isinstance(result, Refused):
                self.failures.inc()
            else:
                seconds += result.duration
                self.failures.inc(len(result.faults))

        write_shard(job, count)
        self.seconds.inc(round(seconds))
        if job.store:
            layout.shard_path(self.scratch, job.shard).unlink()


def run(jobs: Sequence[ShardJob], processes: int, options: str) -> None:
    """Write shards by a pipeline.

    Parameters
    ----------
    jobs
        Jobs of one records directory.
    processes
        Number of workers, if the pipeline runs on this machine.
    options
        The pipeline's options, as on a command line.

    Raises
    ------
    UserError
        If the options are not well-formed, the pipeline fails, or a shard does not arrive.
    """
    parsed = _parse(options, processes)
    directory, store = jobs[0].directory, jobs[0].store
    passing = None if store else _passing_store(directory, parsed)
    if passing:
        jobs = [replace(job, store=passing) for job in jobs]
    left = _fetch(jobs)
    if left:
        folder = urls.join(jobs[0].store or directory, JOBS)
        _send(left, folder)
        _run_pipeline([_name(job) for job in left], folder, parsed)
        missing = _fetch(left)
        if missing:
            raise UserError(
                f"the Beam pipeline ended, but shard {missing[0].shard} is not in {directory}: "
                "workers on other machines need --temp_location=URL in --beam_options, or the "
                "same folders at the same absolute paths."
            )
        urls.remove(folder)
    if passing:
        urls.remove(passing)


def _parse(options: str, processes: int) -> PipelineOptions:
    try:
        given = shlex.split(options)
        parsed = PipelineOptions([*DEFAULT_OPTIONS, f"--direct_num_workers={processes}", *given])
        parsed.get_all_options()  # argparse exits
    except (ValueError, SystemExit) as error:
        raise UserError(f"--beam_options={options} is not understood ({error}).") from error
    return parsed


def _passing_store(directory: Path, options: PipelineOptions) -> str | None:
    """Return the URL through which shards of a local directory come home, if one is given."""
    location = urls.location(options.view_as(GoogleCloudOptions).temp_location or "")
    return f"{location}/vae_jax-{directory.name}" if isinstance(location, str) else None


def _name(job: ShardJob) -> str:
    return f"job-{job.shard:05d}.json"


def _send(jobs: Sequence[ShardJob], folder: Location) -> None:
    """Put what workers need where they find it: inside the graph it could be too large."""
    for job in jobs:
        urls.write(urls.join(folder, _name(job)), job.to_json())
    if jobs[0].store and jobs[0].feature["name"] in WITH_LYRICS:
        lyrics = (jobs[0].directory / layout.LYRICS).read_bytes()
        urls.write(urls.join(folder, layout.LYRICS), lyrics)


def _fetch(jobs: Sequence[ShardJob]) -> list[ShardJob]:
    """Bring finished shards home from a URL; return the jobs that are not finished."""
    if jobs[0].store:
        only = {job.shard for job in jobs}
        object_store.fetch_shards(jobs[0].store, jobs[0].directory, only)
    return [job for job in jobs if not is_done(job)]


def _run_pipeline(names: Sequence[str], folder: Location, options: PipelineOptions) -> None:
    pipeline = beam.Pipeline(options=options)
    shuffled = pipeline | beam.Create(names) | beam.Reshuffle()  # spreads them over the workers
    shuffled | beam.ParDo(WriteShard(folder))
    try:
        with pool.worker_environment():
            result = pipeline.run()
            result.wait_until_finish()
    except Exception as error:  # every runner raises its own kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"the Beam pipeline failed: {reason[-1]}") from error
    counters = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    counts = [f"{counter.key.metric.name} {counter.result}" for counter in counters]
    logging.info("features: Beam counted %s", ", ".join(sorted(counts)) or "nothing")
