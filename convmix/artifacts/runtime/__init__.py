"""Exported models read back and run: onnxruntime, OpenVINO, torch.export programs and AOTInductor packages."""
