"""What agents and teams share: the definition, how it is run, its sessions, its prompts."""
