"""The pages: server-rendered, filled by the same API operations that programs call."""
