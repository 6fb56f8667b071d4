"""What a program runs on: processes, TPU slices and their rates, memory, compiling, and how long devices wait."""
