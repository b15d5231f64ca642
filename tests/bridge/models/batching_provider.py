"""A provider other than the CPU's that every machine has."""

import onnxruntime
import pytest

from bridge.models.session import CPU

AZURE = "AzureExecutionProvider"

IN_BATCHES = pytest.param(
    [AZURE, CPU],
    marks=pytest.mark.skipif(
        AZURE not in onnxruntime.get_available_providers(), reason=f"ONNX Runtime was built without {AZURE}"
    ),
)
"""It only calls remote models, so for ours the CPU computes; but sequences come to it as to any other device, padded
and several at once."""
