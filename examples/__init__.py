"""Programs to read and to run: `python -m examples.shared_state`, with OPENAI_API_KEY set."""
