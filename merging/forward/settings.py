"""What forward passes are told, declared below everybody who makes them: runs, looks at models, fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from merging.forward.workers import Workers
from merging.machine import MOST_THREADS, PRECISIONS
from merging.plugins.options import Declared, Setting, option


@dataclass(frozen=True, kw_only=True)
class Passes(Declared):
    """The way in which forward passes are made: device, precision, threads, and what is saved or kept."""

    device: str = option(
        "auto",
        "Device of passes: auto, cpu, cuda or mps.",
        setting=Setting(metavar="NAME", more="`cuda:1` is the second GPU."),
    )
    precision: str = option(
        "auto",
        "Precision of the search's passes: fp32, bf16 or auto.",
        choices=PRECISIONS,
        setting=Setting(
            metavar="NAME",
            default="auto, bf16 on GPUs that have it",
            more="Small models stay in fp32. Weights are mixed, and all scores of the report re-scored, in fp32.",
        ),
    )
    threads: int | None = option(
        None,
        "Threads of the CPU.",
        low=1,
        high=MOST_THREADS,
        setting=Setting(
            metavar="N",
            default="by the model's size, within what is granted",
            more="Passes, reading and writing use them; `OMP_NUM_THREADS` and the cgroup grant them.",
        ),
    )
    workers: int | str | None = option(
        None,
        "Processes that evaluate side by side: N, gpu or ray.",
        setting=Setting(
            metavar="N|gpu|ray",
            default="none, this process alone",
            changes=True,
            more=(
                "Or gpu:4, ray:HOST:PORT, ray:auto, and 8@ray:HOST:PORT for eight there; gpu alone is one a GPU. Any "
                "number has the same bits; on a CPU each has one thread, unless `threads` says otherwise."
            ),
        ),
    )
    tune: bool = option(
        False,
        "Measure the fastest batch and threads first.",
        setting=Setting(switch="on", more="They follow a fixed rule otherwise."),
    )
    compile: bool | None = option(
        None,
        "Run the model through torch.compile.",
        setting=Setting(
            switch="both",
            default="on GPUs, in bf16, for long searches",
            more="Repeated blocks once; a model without any whole, with CUDA graphs on a CUDA device.",
        ),
    )
    cache_memory: int | None = option(
        None,
        "Memory for activations of earlier passes; 0: none.",
        low=0,
        setting=Setting(
            metavar="MIB",
            default="1024",
            changes=True,
            more="A change of late components costs the late part of a pass then; changes no result.",
        ),
    )
    exact_savings: bool = option(
        True,
        "Compute only what a change of components changes.",
        setting=Setting(
            switch="off",
            said="Make every evaluation a whole pass, to measure what is saved.",
            changes=True,
            silent=True,
            more="Changes no result.",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers is not None:
            crew = Workers.of(self.workers)
            object.__setattr__(self, "workers", crew.said)
            crew.on(self.device)

    @property
    def crew(self) -> Workers | None:
        """The workers that are asked for; None: this process alone."""
        return None if self.workers is None else Workers.of(self.workers)


OF_SEARCHES = tuple(name for name in Passes.__dataclass_fields__ if name not in ("device", "threads"))
"""Settings that only a search's passes are told: trainings and scores of record are in fp32, whole and not compiled."""
