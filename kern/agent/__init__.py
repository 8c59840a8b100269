"""Agents."""

from kern.agent.agent import Agent

__all__ = ["Agent"]
