"""The work itself: projects and their items, who gets which task, what becomes of an answer."""
