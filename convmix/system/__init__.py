"""What the operating system gives and limits: locks, processors, consoles, folders that may not be written."""
