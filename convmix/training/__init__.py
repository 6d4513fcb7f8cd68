"""Learning: a job is prepared, fitted step by step, and finished into a model directory."""
