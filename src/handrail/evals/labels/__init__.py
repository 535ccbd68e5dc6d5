"""What people say about trials, and whether a judge agrees with them."""
