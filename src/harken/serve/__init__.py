"""A model behind OpenAI's HTTP API, and what people say of its answers."""
