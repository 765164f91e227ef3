"""The doctor: looks at a set-up from outside and says in one table what works, what does not, and what to type."""
