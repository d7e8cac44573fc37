"""Writes shards as an Apache Beam pipeline, for `features.extract` (extra `beam`).

The elements are shards: workers run the very same `write_shard` as the local pool. Each gets its
job from the exchange folder, which launcher and workers share:

- with `--temp_location=URL` among the options (gs://, s3://, az://), a folder there: workers put
  finished shards into it and the launcher brings them home, so that nothing else is shared but
  the audio, at URLs too. What was finished there when the launcher died is not written again.
- else one inside the records directory, which all workers see at the launcher's path, as the audio.

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

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
from absl import logging
from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from vae_jax import files, records, urls
from vae_jax.errors import UserError
from vae_jax.features.extractors import Extracted
from vae_jax.features.pool import WORKER_ENVIRONMENT
from vae_jax.features.shards import ShardJob, accept, is_done, write_shard
from vae_jax.urls import Location

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
        """Make the folder for what goes through a URL; one per worker keeps lyrics loaded."""
        self.scratch = Path(tempfile.mkdtemp(prefix="vae_jax-"))

    def teardown(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def process(self, name: str) -> None:
        """Write one shard."""
        with urls.local(urls.join(self.folder, name)) as path:
            job = ShardJob.from_json(path.read_bytes())
        seconds = 0.0

        def count(result: Extracted | str) -> None:
            nonlocal seconds
            self.tracks.inc()
            if isinstance(result, str):
                self.failures.inc()
            else:
                seconds += result.duration
                self.failures.inc(len(result.faults))

        if isinstance(self.folder, str):
            self._write_through(self.folder, job, count)
        else:
            write_shard(job, count)
        self.seconds.inc(round(seconds))

    def _write_through(
        self, folder: str, job: ShardJob, count: Callable[[Extracted | str], None]
    ) -> None:
        """Write a shard here, and put it into a folder at a URL; its marker last."""
        if job.lyrics:
            _copy(urls.join(folder, records.LYRICS), self.scratch / records.LYRICS)
        write_shard(replace(job, directory=self.scratch), count)
        for path in (
            records.shard_path(self.scratch, job.shard),
            records.marker_path(self.scratch, job.shard),
        ):
            urls.write(f"{folder}/{path.name}", path.read_bytes())
            path.unlink()


def run(jobs: Sequence[ShardJob], processes: int, options: str) -> None:
    """Write shards by a pipeline.

    Parameters
    ----------
    jobs
        Of one records directory.
    processes
        Workers, where the pipeline runs on this machine.
    options
        The pipeline's options, as on a command line.

    Raises
    ------
    UserError
        If the options are not well-formed, the pipeline fails, or a shard does not arrive.
    """
    parsed = _parse(options, processes)
    directory = jobs[0].directory
    folder = _exchange_folder(directory, parsed)
    jobs = _fetch(jobs, folder)
    if jobs:
        _send(jobs, folder)
        _run_pipeline([_name(job) for job in jobs], folder, parsed)
        missing = [job for job in _fetch(jobs, folder) if not is_done(job)]
        if missing:
            raise UserError(
                f"the Beam pipeline ended, but shard {missing[0].shard} is not in {directory}: "
                "workers on other machines need --temp_location=URL in --beam_options, or the "
                "same folders at the same absolute paths."
            )
    urls.remove(folder)


def _parse(options: str, processes: int) -> PipelineOptions:
    try:
        given = shlex.split(options)
        parsed = PipelineOptions([*DEFAULT_OPTIONS, f"--direct_num_workers={processes}", *given])
        parsed.get_all_options()  # argparse exits
    except (ValueError, SystemExit) as error:
        raise UserError(f"--beam_options={options} is not understood ({error}).") from error
    return parsed


def _exchange_folder(directory: Path, options: PipelineOptions) -> Location:
    location = urls.location(options.view_as(GoogleCloudOptions).temp_location or "")
    return f"{location}/vae_jax-{directory.name}" if isinstance(location, str) else directory / JOBS


def _name(job: ShardJob) -> str:
    return f"job-{job.shard:05d}.json"


def _send(jobs: Sequence[ShardJob], folder: Location) -> None:
    """Put what workers need into the exchange folder; a graph with it inside could grow huge."""
    for job in jobs:
        urls.write(urls.join(folder, _name(job)), job.to_json())
    if isinstance(folder, str) and jobs[0].lyrics:
        lyrics = (jobs[0].directory / records.LYRICS).read_bytes()
        urls.write(f"{folder}/{records.LYRICS}", lyrics)


def _fetch(jobs: Sequence[ShardJob], folder: Location) -> list[ShardJob]:
    """Bring finished shards home from a URL; return the jobs of those that are not there."""
    there = urls.names(folder) if isinstance(folder, str) else set()
    left = []
    for job in jobs:
        shard = records.shard_path(job.directory, job.shard)
        marker = records.marker_path(job.directory, job.shard)
        if marker.name in there:
            for path in (shard, marker):
                _copy(urls.join(folder, path.name), path)
        if marker.name not in there or not accept(job):
            left.append(job)
    return left


def _copy(source: Location, path: Path) -> None:
    with urls.local(source) as copy, open(copy, "rb") as content, files.atomic_write(path) as file:
        shutil.copyfileobj(content, file)


def _run_pipeline(names: Sequence[str], folder: Location, options: PipelineOptions) -> None:
    pipeline = beam.Pipeline(options=options)
    shuffled = pipeline | beam.Create(names) | beam.Reshuffle()  # spreads them over the workers
    shuffled | beam.ParDo(WriteShard(folder))
    try:
        with _worker_environment():
            result = pipeline.run()
            result.wait_until_finish()
    except Exception as error:  # every runner raises its own kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"the Beam pipeline failed: {reason[-1]}") from error
    counters = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    counts = [f"{counter.key.metric.name} {counter.result}" for counter in counters]
    logging.info("features: Beam counted %s", ", ".join(sorted(counts)) or "nothing")


@contextlib.contextmanager
def _worker_environment() -> Iterator[None]:
    """Let processes that the runner starts here share the machine as the pool's do."""
    before = dict(os.environ)
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
