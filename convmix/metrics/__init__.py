"""How good answers are, and how sure: scores with intervals, matching of objects, calibration."""
