"""What a lead sees of a project's answers: figures and charts."""
