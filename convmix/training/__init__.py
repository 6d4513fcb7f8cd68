"""Learning: a run is set up, fitted step by step and completed as a model directory."""
