"""Where jobs come from besides `enqueue`."""
