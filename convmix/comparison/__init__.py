"""Which model is better, and which part of it: several candidates and seeds, one recipe and budget."""
