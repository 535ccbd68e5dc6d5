"""Cases from production: drawn, redacted, completed by people."""
