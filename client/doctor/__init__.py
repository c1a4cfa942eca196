"""What `fedward-site check` looks at: one line for each thing that can go wrong, with what to do about it."""
