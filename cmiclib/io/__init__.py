"""Files from outside, read with limits and without running code; what is written, is written whole."""
