"""The coordinator's status page: where each study stands, from plan and journal alone, also while it runs."""
