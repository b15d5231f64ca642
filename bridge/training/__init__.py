"""Fine-tune, distil, export and quantise models.

The only package that imports torch and transformers (the `train` extra); serving and
ingest never need it. What comes out is a model folder as `bridge.models.artifact`
reads it.
"""
