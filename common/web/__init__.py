"""What both status pages stand on: a guarded door, safe markup, charts, metrics, one look."""
