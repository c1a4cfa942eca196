"""fedward-server: what the coordinator of a study runs."""

from common.terminal import new_application, run

HELP = """Define a study, sign it, and run it over hospitals whose scans stay where they are.

Examples: **fedward-server plan check** study.toml · **fedward-server plan sign** study.toml --key coordinator.key
"""

COMMANDS = {
    "keys": ("common.keys_command:keys_app", "Make keys and show fingerprints."),
    "roster": ("server.commands.roster:roster_app", "Sign and show the roster of a federation."),
    "plan": ("server.commands.plan:plan_app", "Make, check and sign a study plan."),
    "status": ("server.commands.status:status", "Show where a study stands."),
    "export": ("server.commands.export:export", "Write the model and its card."),
}

app = new_application("fedward-server", HELP, COMMANDS)


def main() -> None:
    """Entry point of the console script."""
    run(app)


if __name__ == "__main__":
    main()
