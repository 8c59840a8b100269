"""What concerns several threads, event loops and processes at once; it knows of Kern only the errors.

- `lock`: a fair lock and semaphore for tasks of several loops and for threads.
- `threads`: the threads of sync functions, the application's and Kern's own.
- `executor`: the threads of `loop.run_in_executor`, with the caller's context variables.
- `loops`: one resource per event loop, closed with it; which task runs.
- `shield`: waiting in spite of cancellation.
- `waiting`: who waits for a thread.
- `fork`: hooks around `os.fork`.
"""
