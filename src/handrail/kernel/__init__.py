"""What every package builds on: ids, money, time, errors, and the database with its single writer."""
