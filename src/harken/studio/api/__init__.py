"""What the pages and programs call: one module a subject, the operations declared in it."""
