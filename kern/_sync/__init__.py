"""Tools for code that runs in several threads, event loops and processes. Of Kern it imports only the errors.

- `lock`: a fair lock and semaphore for tasks of several event loops and for threads.
- `threads`: the threads of sync functions, of the application and of Kern itself.
- `executor`: the threads of `loop.run_in_executor`, with the caller's context variables.
- `loops`: one resource per event loop, closed with the loop; the running task.
- `shield`: waits that survive cancellation.
- `waiting`: finds the code that waits for a thread.
- `offload`: moves work on large states into a thread.
- `fork`: hooks around `os.fork`.
"""
