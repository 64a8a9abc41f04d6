"""What trains, measures and plots; never imported by what is installed."""
