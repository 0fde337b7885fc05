"""The mechanism: clip, sum, add noise, account. Knows neither data sets nor models."""
