"""What a task needs on the build host: one file a task, named as in the runtime."""
