"""What users type: a module for each family of commands, none with logic of its own."""
