"""Tells people of events: webhooks, e-mails, and who sends them when."""
