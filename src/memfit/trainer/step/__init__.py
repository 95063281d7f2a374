"""The step as it is trained: ingredients, schedule, evaluation."""
