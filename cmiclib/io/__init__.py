"""Files from outside are read with limits and run no code; files are written whole or not at all."""
