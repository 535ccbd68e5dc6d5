"""The pages of the browser's door, one module for each part of the menu."""

from fastapi import APIRouter

from . import cost, evals, inbox, login, overview, runs, spending, steps, traces

PAGES: tuple[APIRouter, ...] = (
    login.router,
    overview.router,
    runs.router,
    inbox.router,
    traces.router,
    steps.router,
    cost.router,
    spending.router,
    evals.router,
)

__all__ = ["PAGES"]
