"""Cases drawn from production runs, with personal data removed."""
