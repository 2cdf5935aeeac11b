"""When things happen: pure arithmetic in whole nanoseconds, and one file that waits."""
