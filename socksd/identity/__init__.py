"""Who are they? The twisted.cred portal, its checkers and what they cost."""
