"""Made-up pictures of coloured shapes, and a toy dual encoder for them."""

from pathlib import Path

SHAPES_CLIP = Path(__file__).parent / "shapes-clip"
"""The toy's model folder; its README.md is its card."""
