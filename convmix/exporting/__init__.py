"""Trained models for ONNX Runtime, OpenVINO and torch.export, verified before they are written."""
