"""Which model is better, and which part of it: trainings of several contenders with several seeds under one recipe and budget."""
