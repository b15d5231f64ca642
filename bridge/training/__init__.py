"""Fine-tunes, distils, exports and quantises models.

The only package that imports torch and transformers (the `train` extra); serving and ingest never need it. The result
is a model folder that `bridge.models.artifact` reads.
"""
