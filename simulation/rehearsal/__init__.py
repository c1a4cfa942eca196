"""The whole deployment on one machine, with real processes, TLS and the commands that hospitals type."""
