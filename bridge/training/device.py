"""Where and in what precision training computes."""

import torch

PRECISION = torch.bfloat16
"""The range of float32, so no loss scaling; AMX and tensor cores multiply it at their best speed."""


def training_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
