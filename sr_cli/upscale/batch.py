"""A batch: plans it, has workers do it, and reports it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from sr_cli import inference
from sr_cli.upscale import inputs as planning
from sr_cli.upscale.events import ImageResult, OnEvent
from sr_cli.upscale.inputs import Batch
from sr_cli.upscale.journal import Journals
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.tally import Tally
from sr_cli.upscale.worker import Streams, Worker


def run(
    inputs: Sequence[str | Path],
    output: str | Path | None,
    options: UpscaleOptions,
    on_event: OnEvent,
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> list[ImageResult]:
    """Enlarge each input; a failure is reported and does not stop the others.

    An input is a file, a folder, a pattern or `-` (`stdin`); `output` is a file, a folder, `-` (`stdout`), or
    None for names next to the inputs. Raises UsageError for an invalid request, WeightsError if the
    model is not available, both before any photo is touched.
    """
    shard = options.part
    journals = Journals.of(options)
    batch = planning.plan([str(name) for name in inputs], None if output is None else str(output), options, journals)
    if shard is not None:
        batch = planning.of_shard(batch, shard)
    if options.engine == "ray":
        from sr_cli.upscale import ray_actors

        return _reported(batch, on_event, lambda tally: ray_actors.run(batch.tasks, options, tally))
    if options.devices is not None:
        from sr_cli.upscale import devices

        chosen = inference.choose_devices(options.devices)
        return _reported(batch, on_event, lambda tally: devices.run(batch.tasks, chosen, options, journals, tally))
    worker = Worker(options, journals, batch.several, Streams(stdin, stdout))
    return _reported(batch, on_event, lambda tally: worker.work(enumerate(batch.tasks), tally))


def _reported(batch: Batch, on_event: OnEvent, work: Callable[[Tally], None]) -> list[ImageResult]:
    """Do `work`, which tells the tally, and return the results in the order of the tasks."""
    tally = Tally(batch.tasks, on_event)
    try:
        if batch.left_out:
            count = len(batch.left_out)
            noun = "photo" if count == 1 else "photos"
            tally.message("note", f"{count} {noun} skipped: outputs of srup; to enlarge one again, name it alone")
        work(tally)
    except BaseException as error:
        tally.end("error" if isinstance(error, Exception) else "interrupted")
        raise
    tally.end("complete")
    return [tally.results[index] for index in range(len(batch.tasks))]
