"""The page's tabs, one to a file."""
