"""The commands of the evaluation component."""
