"""Hard ceilings on tokens and money: hold before a request, settle after it, refuse what does not fit."""
