"""ONNX models, shared by both sides of the bridge."""
