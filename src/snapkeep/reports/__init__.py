"""Reports of what is covered, what there is and what was done: made, written in several forms, sent on schedule."""
