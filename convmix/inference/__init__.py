"""Images to answers: batches through a model, the engine that computes them, the files written."""
