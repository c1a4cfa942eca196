"""What this hospital agreed to: its policy, approved plans, what each would cost, and the pause."""
