"""Where and in what precision training computes."""

import torch


def training_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 for matrix products, float32 for weights and sums: the same range as float32,
    so no loss scaling; twice as fast on CPUs with AMX.
    """
    return torch.autocast(device.type, torch.bfloat16)
