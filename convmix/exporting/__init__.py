"""Trained models leave convmix: written for onnxruntime, OpenVINO and torch.export, verified before anything is written."""
