"""The runtime: the one loop, tool calls, streams, sessions in use, commits; no Agent and no Team in it."""
