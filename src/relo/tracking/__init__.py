"""Tracking with a trained network: one step, target state, video in and out."""
