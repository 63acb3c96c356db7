"""What the scoring rules of several benchmarks share; a benchmark's own rules stand in its own file."""
