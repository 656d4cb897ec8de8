"""What decides the bits of a score besides model, data and objective: the code, the machine, the ways of computing.

All of it stands in the key of a score that is kept between commands: another of them is another score.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3

import merging
from merging.storage.file_hashes import code_digest

PACKAGES = ("merging", "torch", "numpy", "scipy", "torchvision", "timm", "open_clip_torch", "transformers", "triton")
"""Packages that build models, prepare samples, or compute."""
_INTEL = ("DNNL_", "KMP_", "MKL_", "ONEDNN_")
VARIABLES = ("ATEN_", "CUBLAS", "CUDA_", "CUDNN_", "NVIDIA_TF32", "PYTORCH_", "TORCH", *_INTEL)
"""Beginnings of names of environment variables by which libraries choose how they compute."""
_PLACES = ("_DIR", "_HOME", "_PATH", "CUDA_VISIBLE_DEVICES")
"""Ends of names of those that say where something is; which GPU is used stands in the key by what it is."""
_CPU = ("model name", "flags", "Features", "CPU implementer", "CPU part")
"""Lines of /proc/cpuinfo that tell what a library may dispatch on."""


def surroundings(device: str) -> dict[str, Any]:
    """Collects what decides the bits of passes on a device, JSON-ready.

    Args:
        device: name of torch's device.

    Raises:
        OSError: the package's own code cannot be read.
    """
    return {
        "code": _own_code(),
        "versions": _versions(),
        "cpu": _cpu(),
        "device": _device(device),
        "torch": _switches(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(VARIABLES) and not name.endswith(_PLACES)
        },
    }


@functools.cache
def _own_code() -> str:
    """A digest of this package's code: a fix in it makes other scores, also where no version says so."""
    return code_digest(*(folder.resolve() for folder in _folders()))


def _folders() -> list[Path]:
    """The package's folder and those that it links to."""
    home = Path(merging.__file__).parent
    return [home, *(each for each in sorted(home.iterdir()) if each.is_symlink() and each.is_dir())]


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found | {
        "git": str(torch.version.git_version),
        "build": blake3(torch.__config__.show().encode()).hexdigest(),
    }


@functools.cache
def _cpu() -> list[str]:
    """What the processor is: kernels are chosen by it."""
    found = [torch.backends.cpu.get_cpu_capability(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        lines = []
    return found + sorted({line for line in lines if line.partition(":")[0].strip() in _CPU})


def _device(device: str) -> list[Any]:
    """What a GPU is, and what computes on it."""
    if not device.startswith("cuda"):
        return [device, platform.mac_ver()[0] if device == "mps" else ""]
    facts = torch.cuda.get_device_properties(device)
    shape = [facts.name, facts.major, facts.minor, facts.total_memory, facts.multi_processor_count]
    return ["cuda", *shape, str(torch.version.cuda), str(torch.version.hip), torch.backends.cudnn.version()]


def _switches() -> dict[str, Any]:
    """What torch was told of precision, determinism and backends; a switch that this version lacks is none."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    cuda = torch.backends.cuda
    return {
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "denormal": bool(torch.tensor([1e-40], dtype=torch.float32).mul(1.0).item() == 0.0),
        "mkldnn": [torch.backends.mkldnn.enabled, str(getattr(torch.backends.mkldnn, "allow_tf32", ""))],
        "cuda": [matmul.allow_tf32, matmul.allow_fp16_reduced_precision_reduction],
        "bf16": str(matmul.allow_bf16_reduced_precision_reduction),
        "cudnn": [cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32],
        "sdp": [cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()],
        "fastpath": torch.backends.mha.get_fastpath_enabled(),
    }
