"""The one place that opens ONNX Runtime sessions and runs them.

A session runs on one thread, and several threads share it: ONNX Runtime releases the GIL, and sequences
split across threads are 1.3 times as fast as one operator split across cores. On a CPU each run holds one sequence,
so nothing is padded, and the scale that dynamic quantisation takes from a batch is the sequence's own:
a score never depends on the other texts of its batch.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bridge.errors import ModelError, SettingsError

CPU = "CPUExecutionProvider"
"""ONNX Runtime's name for the execution provider that is always there."""

SLOWER_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]
"""The fused kernels take longer than what they replace: a whole model by a quarter and by a thirtieth."""

CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


class Session:
    """A loaded model: named arrays in, named arrays out. Safe to use from several threads."""

    def __init__(
        self, model_file: Path, *, inputs: frozenset[str] | None = None, providers: Sequence[str] = (CPU,)
    ) -> None:
        """Opens `model_file`, which may take any of `inputs` (None: whatever its caller gives), on the first of
        `providers`; the others run what the ones before them cannot.

        Raises:
            ModelError: ONNX Runtime refuses the file, or it wants inputs that we do not have.
            SettingsError: a provider is here but does not start.
        """
        self._file = model_file
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # plans memory per input shape, and every length is a new shape
        # Its lock would make threads that run short sequences wait for each other: by two threads a small model took
        # 1.4 times as long.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(model_file),
                sess_options=options,
                providers=list(providers),
                disabled_optimizers=SLOWER_FUSIONS,
            )
        except Exception as error:  # the binding raises its own types, without a common root
            raise ModelError(f"model file {model_file}: ONNX Runtime cannot load it: {error}") from error
        # A provider whose device or libraries are missing is left out without an error.
        self.providers: list[str] = self._session.get_providers()
        if left_out := [provider for provider in providers if provider not in self.providers]:
            raise SettingsError(
                f"{left_out[0]} does not start on this machine: see what ONNX Runtime wrote about its libraries, or "
                f"leave it out of sidecar.providers and ingest.providers"
            )
        self.inputs: frozenset[str] = frozenset(node.name for node in self._session.get_inputs())
        if inputs is not None and (unknown := self.inputs - inputs):
            raise ModelError(
                f"model file {model_file} wants inputs {sorted(unknown)}, known are {sorted(inputs)}: "
                f"export it with `neural-bridge models export`"
            )
        self.outputs: list[str] = [node.name for node in self._session.get_outputs()]

    @property
    def wants_batches(self) -> bool:
        """Whether several sequences at once, padded, are faster than one after the other: on all but CPUs, for a model
        that takes a mask (those quantised for CPUs take none)."""
        return self.providers[0] != CPU and "attention_mask" in self.inputs

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The first output; of `arrays` those are used that the model takes.

        Raises:
            ModelError: the run failed (out of memory included), or a value is not finite.
        """
        output = np.asarray(self._run(self.outputs[:1], arrays)[0], dtype=np.float32)
        if not np.isfinite(output).all():
            raise ModelError(f"model file {self._file} gave a value that is not finite (NaN or infinity)")
        return output

    def run_all(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Every output by its name; of `arrays` those are used that the model takes.

        Raises:
            ModelError: the run failed.
        """
        return dict(zip(self.outputs, self._run(self.outputs, arrays), strict=True))

    def _run(self, outputs: list[str], arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
        try:
            results: list[Any] = self._session.run(outputs, {name: arrays[name] for name in self.inputs})
        except Exception as error:  # as above
            raise ModelError(f"model file {self._file}: the run failed: {error}") from error
        return results


def check_providers(providers: Sequence[str], *, setting: str) -> None:
    """Compares names from `setting` with what this ONNX Runtime was built with.

    Raises:
        SettingsError: there is none, or one that is not among them.
    """
    offered = ort.get_available_providers()
    for provider in providers:
        if provider not in offered:
            raise SettingsError(
                f"{setting}: there is no {provider} here, but {', '.join(offered)}: name one of these, or "
                f"install the build of ONNX Runtime that has it (onnxruntime-gpu for CUDA and TensorRT)"
            )
    if not providers:
        raise SettingsError(f"{setting}: at least one is needed, such as {CPU}")


def compute_threads(threads: int) -> int:
    """`threads`, or for 0 the CPUs that this process may use: affinity and the cgroup's quota."""
    if threads > 0:
        return threads
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_LIMIT.read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))
